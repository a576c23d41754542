"""What Prithvi is: the published models, their weights, and the networks these belong to."""
