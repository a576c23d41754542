"""What is cheap: the floor in every report."""
