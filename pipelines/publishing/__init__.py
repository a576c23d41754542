"""Runs given to others by the Hugging Face Hub, and taken from it."""
