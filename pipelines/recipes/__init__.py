"""The recipe, and those that come with earthtune."""
