"""The downstream tasks, one a file."""
