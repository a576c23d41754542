"""What stands on a backbone: decoders, the full-resolution path, quantiles, finer cells."""
