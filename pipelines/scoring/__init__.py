"""What a scoring does: plan, jobs, workers, rows."""
