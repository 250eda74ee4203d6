"""Training of the miniature checkpoints; only `miniature.train` uses it."""
