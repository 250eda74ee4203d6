"""The error of a record that cannot be read."""

__all__ = ["RowError"]


class RowError(ValueError):
    """A record that cannot be read; the message says what is wrong and how to fix it."""
