"""Estimates the cost of decoding a JPEG from its markers."""

from __future__ import annotations

import re
from struct import unpack_from
from typing import NamedTuple

__all__ = ["JpegHeader", "read_jpeg"]

_MARKER = re.compile(rb"\xff([\x01-\xfe])", re.DOTALL)
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_BLOCK_BYTES = 64 * 2


class JpegHeader(NamedTuple):
    """The properties of a JPEG that determine its decoding cost.

    Attributes:
        scans: number of scans, at most one more than the limit.
        coefficient_bytes: memory for the image's coefficients, which a decoder keeps if there is more than one scan.
    """

    scans: int
    coefficient_bytes: int


def read_jpeg(data: bytes, max_scans: int) -> JpegHeader | None:
    """Read the markers of a file; None if it is not a JPEG. Stops after `max_scans` + 1 scans."""
    if data[:2] != b"\xff\xd8":
        return None
    scans = blocks = components = 0
    buffered = False
    at = 2
    while scans <= max_scans and (found := _MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == _EOI:
            break
        if marker in _WITHOUT_LENGTH or marker == _SOI or at + 2 > len(data):
            continue
        if marker in _FRAMES and blocks == 0:
            components, blocks = _frame(data, at)
            buffered = marker in _PROGRESSIVE
        if marker == _SOS:
            scans += 1
            buffered = buffered or (at + 2 < len(data) and data[at + 2] < components)
        at += max(2, unpack_from(">H", data, at)[0])
    return JpegHeader(scans, blocks * _BLOCK_BYTES if buffered else 0)


def _frame(data: bytes, at: int) -> tuple[int, int]:
    """Return the number of components in a frame header, and of their blocks of 8 x 8 coefficients."""
    if at + 8 > len(data):
        return 0, 0
    height, width, components = unpack_from(">HHB", data, at + 3)
    sampling = [data[one] for one in range(at + 9, min(at + 8 + 3 * components, len(data)), 3)]
    factors = [(max(1, one >> 4), max(1, one & 15)) for one in sampling] or [(1, 1)]
    across, down = max(one for one, _ in factors), max(one for _, one in factors)
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    return components, sum(columns * one * rows * two for one, two in factors)
