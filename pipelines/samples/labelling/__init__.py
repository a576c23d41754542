"""What samples are told: rasters and polygons of labels, and what reviewers corrected."""
