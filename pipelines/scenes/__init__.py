"""Satellite files: scenes, products, bands, STAC items."""
