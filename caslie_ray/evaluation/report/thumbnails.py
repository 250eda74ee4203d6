"""Thumbnails for the report page: the more there are, the smaller they get, so that the page stays within a budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

__all__ = ["longest_side", "make_thumbnails", "thumbnail"]

# Bytes of all thumbnails together, before base64 adds a third.
_BUDGET = 7_500_000
# (maximum number of images, longest side in pixels)
_SIDES = ((1_000, 320), (2_500, 192))
_SMALLEST = 112
_QUALITIES = (72, 50, 30, 12)
_THREADS = 4


def longest_side(count: int) -> int:
    """Return the longest side in pixels of each of `count` thumbnails."""
    return next((side for limit, side in _SIDES if count <= limit), _SMALLEST)


def thumbnail(data: bytes, side: int, allowance: int) -> bytes | None:
    """Return an image as a small WebP; None if it cannot be read.

    Args:
        data: the stored image.
        side: the longest side in pixels; smaller images are not enlarged.
        allowance: target size in bytes; the lowest quality may exceed it.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            # Lets a JPEG be decoded at a fraction of its size.
            opened.draft("RGB", (side * 2, side * 2))
            small = opened.convert("RGB")
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        encoded = b""
        for quality in _QUALITIES:
            sink = io.BytesIO()
            small.save(sink, "WEBP", quality=quality, method=4)
            encoded = sink.getvalue()
            if len(encoded) <= allowance:
                break
        return encoded
    except Exception:  # Pillow raises almost anything on damaged files
        return None


def make_thumbnails(images: Mapping[str, bytes], count: int | None = None) -> dict[str, str | None]:
    """Return a base64 WebP thumbnail per image id; None for images that cannot be read.

    Args:
        images: JPEG or PNG bytes by image id.
        count: number of thumbnails on the page, of which these are a part; all of them if None.
    """
    if not images:
        return {}
    count = count or len(images)
    side, allowance = longest_side(count), _BUDGET // count
    # Pillow releases the GIL while it decodes and encodes.
    with ThreadPoolExecutor(_THREADS) as pool:
        small = pool.map(lambda data: thumbnail(data, side, allowance), images.values())
        return {
            name: base64.b64encode(data).decode() if data else None for name, data in zip(images, small, strict=True)
        }
