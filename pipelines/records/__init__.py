"""What is remembered of work that was done."""
