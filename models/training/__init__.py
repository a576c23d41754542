"""How a network learns: the Lightning module, losses, settings, variation of samples."""
