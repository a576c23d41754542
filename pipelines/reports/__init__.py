"""Reports, scores, plots, maps in figures, web maps."""
