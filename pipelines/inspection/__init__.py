"""What is in a file, and whether a run can read it."""
