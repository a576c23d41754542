"""Formats of weather files."""
