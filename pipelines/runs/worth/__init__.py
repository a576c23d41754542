"""What parts of a model are worth: its scores with them, without, and with those of another sample."""
