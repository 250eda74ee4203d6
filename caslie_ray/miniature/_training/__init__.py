"""Trains the miniature checkpoints; nothing else in the package needs it."""
