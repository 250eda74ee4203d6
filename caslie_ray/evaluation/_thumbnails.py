"""Small pictures for the report page: as good as their number allows, so that the page stays light."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

__all__ = ["longest_side", "thumbnail", "thumbnails"]

# All of them together, before base64 makes them a third larger; text is on top of that.
_BUDGET = 7_500_000
# (up to so many images, the longest side).
_SIDES = ((1_000, 320), (2_500, 192))
_SMALLEST = 112
_QUALITIES = (72, 50, 30, 12)
_THREADS = 4


def longest_side(count: int) -> int:
    """Return the longest side, in pixels, of a page's thumbnails when there are so many of them."""
    return next((side for limit, side in _SIDES if count <= limit), _SMALLEST)


def thumbnail(data: bytes, side: int, allowance: int) -> bytes | None:
    """Return an image as a small WebP; None where it cannot be read.

    Args:
        data: the stored image.
        side: the longest side wanted; a smaller image keeps its size.
        allowance: bytes that it may take. The coarsest quality is taken whatever it needs.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            # A JPEG is then decoded at a fraction of its size.
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
    except Exception:  # damaged bytes make Pillow's readers raise almost anything
        return None


def thumbnails(images: Mapping[str, bytes]) -> dict[str, str | None]:
    """Return each image as a thumbnail in base64 (WebP); None where it cannot be read."""
    if not images:
        return {}
    side, allowance = longest_side(len(images)), _BUDGET // len(images)
    # Pillow lets go of the interpreter while it decodes and encodes.
    with ThreadPoolExecutor(_THREADS) as pool:
        small = pool.map(lambda data: thumbnail(data, side, allowance), images.values())
        return {
            name: base64.b64encode(data).decode() if data else None for name, data in zip(images, small, strict=True)
        }
