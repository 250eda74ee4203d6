"""Limits on decoding one image, as plain values."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DecodeLimits"]


class DecodeLimits(NamedTuple):
    """Limits on decoding one image; the attributes are named like the settings in `images`.

    Attributes:
        max_side: longest side of the stored image, in pixels.
        max_pixels: pixels of the source image.
        max_memory: bytes of address space that decoding may add to the decoder process.
        max_scans: scans of a JPEG.
        decode_timeout_s: CPU seconds of the decoder process.
    """

    max_side: int
    max_pixels: int
    max_memory: int
    max_scans: int
    decode_timeout_s: float
