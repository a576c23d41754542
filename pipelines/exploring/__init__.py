"""A map in a notebook to look at rasters, put points and draw corrections."""
