"""Patch tokens of scenes, and what they have in common."""
