"""Probability samples of maps, and areas and accuracies that are estimated from them."""
