"""Samples as rows of a CSV file: read, learned from, scored."""
