"""A run as a folder that any static server serves, and that maps without us."""
