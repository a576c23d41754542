"""Models that others fine-tuned in terratorch, as runs: a checkpoint, and the YAML that it was trained with."""
