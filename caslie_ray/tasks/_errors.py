"""The error of a record that cannot be read."""

__all__ = ["OptionsError", "RowError"]


class RowError(ValueError):
    """A record that cannot be read; the message says what is wrong and how to fix it."""


class OptionsError(RowError):
    """The options of a record are missing or cannot be read."""
