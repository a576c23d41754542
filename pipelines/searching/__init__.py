"""Trials of a recipe with other settings, scored on groups left out: which of them are better, and which are luck."""
