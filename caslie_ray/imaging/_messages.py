"""Messages between a Ray worker and its decoder process: fixed headers and raw bytes, nothing pickled."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

__all__ = ["ANSWER", "REASON_BYTES", "REQUEST", "Kind"]

REQUEST = Struct("<5Qd")
"""Length of the file, then the fields of `DecodeLimits`; the file follows."""

ANSWER = Struct("<B?IIQ")
"""A `Kind`, retryable, width, height, length; the bytes of the image or of the reason follow."""

REASON_BYTES = 2000
"""Longest reason, in bytes of UTF-8."""


class Kind(IntEnum):
    """The kind of a response."""

    READY = 0
    """The process has started."""
    KEPT = 1
    """The file is stored unchanged; no bytes follow."""
    CONVERTED = 2
    """The stored image follows."""
    REJECTED = 3
    """The reason follows."""
