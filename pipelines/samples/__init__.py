"""What a training eats: chips, fields, labels, splits, loaders."""
