"""How far a model's answers are to be trusted: calibrated probabilities, sets of classes, what is unfamiliar."""
