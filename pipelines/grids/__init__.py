"""Grids: onto one, in windows, overlapping, their areas."""
