"""Rasters, files and the order of events: loaders, fine-tuning, scoring, evaluating, reports and the commands."""
