"""Scenes and weather of a place and a period, brought from catalogues and archives."""
