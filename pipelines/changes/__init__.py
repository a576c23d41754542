"""What changed in a place, since when, and whether it was the weather."""
