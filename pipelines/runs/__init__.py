"""From recipe to run folder: prepare, train, assess, write."""
