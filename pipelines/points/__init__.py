"""Maps from a few labelled points."""
