"""Sizes of the values in a Parquet page with encoding DELTA_BYTE_ARRAY, computed without decoding the values.

For each value, such a page has the length of the prefix that it shares with the previous value, and the rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["value_sizes"]

_LARGEST_BLOCK = 1 << 16  # values
_WIDEST = 32  # bits of a length


def value_sizes(data: bytes, most: int) -> tuple[int, int] | None:
    """Return the bytes of all values of a page, and of the longest.

    Args:
        data: the encoded values.
        most: the most values that the page has, by its header.

    Returns:
        None where the page is damaged or has a form that is not supported.
    """
    try:
        prefixes, end = _integers(data, 0, most)
        rests, _ = _integers(data, end, most)
    except (IndexError, ValueError):
        return None
    if len(prefixes) != len(rests) or prefixes.min(initial=0) < 0 or rests.min(initial=0) < 0:
        return None
    sizes = prefixes + rests
    return int(sizes.sum()), int(sizes.max(initial=0))


def _integers(data: bytes, at: int, most: int) -> tuple[npt.NDArray[np.int64], int]:
    """Return integers that are encoded as DELTA_BINARY_PACKED, and where they end.

    Raises:
        ValueError, IndexError: they are damaged.
    """
    block, at = _varint(data, at)
    parts, at = _varint(data, at)
    count, at = _varint(data, at)
    first, at = _zigzag(data, at)
    if not 0 < block <= _LARGEST_BLOCK or not 0 < parts <= block or block % parts or (block // parts) % 32:
        raise ValueError("the size of a block")
    if count > min(most, len(data)):
        raise ValueError("the number of values")
    part = block // parts
    deltas: list[npt.NDArray[np.int64]] = []
    left = count - 1
    while left > 0:
        least, at = _zigzag(data, at)
        widths = data[at : at + parts]
        at += parts
        for width in widths:
            if left <= 0:
                break
            if width > _WIDEST:
                raise ValueError("the width of a value")
            length = part * width // 8
            if at + length > len(data):
                raise ValueError("the end of the page")
            bits = np.unpackbits(np.frombuffer(data, np.uint8, length, at), bitorder="little")
            powers = np.left_shift(np.int64(1), np.arange(width, dtype=np.int64))
            deltas.append((bits.reshape(part, width) @ powers + least)[:left])
            at += length
            left -= part
    values = np.concatenate([np.array([first][:count], np.int64), *deltas])
    # Readers count in 32 bits.
    return np.cumsum(values).astype(np.int32).astype(np.int64), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return found, at
    raise ValueError("the length of a number")


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    found, at = _varint(data, at)
    value = found >> 1 ^ -(found & 1)
    if abs(value) > 1 << 40:
        raise ValueError("the size of a number")
    return value, at
