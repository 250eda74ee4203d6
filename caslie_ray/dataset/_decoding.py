"""Decodes image files to stored images, in a decoder process that is reused.

The stored image is a JPEG or PNG in RGB, upright, with no side longer than the limit. The same bytes and
limits give the same stored bytes, and so the same image_id, on every machine with the same Pillow.
"""

from __future__ import annotations

import atexit
import os
from functools import lru_cache

from caslie_ray.imaging.decoder_process import DecoderProcess
from caslie_ray.imaging.limits import DecodeLimits
from caslie_ray.imaging.storing import ImageError, StoredImage
from caslie_ray.profiles import ImageSettings

__all__ = ["ImageError", "StoredImage", "decode", "decoder", "too_large"]


def decode(data: bytes, limits: ImageSettings) -> StoredImage:
    """Decode an image file in the decoder process and return what is stored of it.

    Args:
        data: the bytes of a JPEG, PNG, GIF, WebP, BMP or TIFF file; of an animation the first frame counts.
        limits: limits on size, memory and time.

    Raises:
        ImageError: the file is empty, truncated, damaged, no image, or over a limit.
    """
    if not data:
        raise ImageError("empty file: it has no bytes; fetch or copy the image again")
    if len(data) > limits.max_bytes:
        raise ImageError(too_large(len(data), limits.max_bytes))
    return decoder().decode(data, DecodeLimits(*(getattr(limits, name) for name in DecodeLimits._fields)))


def decoder() -> DecoderProcess:
    """Return the decoder of this process. It is started with its first image and ends with this process."""
    return _decoder_of(os.getpid())


@lru_cache(maxsize=1)
def _decoder_of(pid: int) -> DecoderProcess:
    """Cache by process id: after a fork, parent and child must not share a decoder."""
    made = DecoderProcess()
    atexit.register(made.close)
    return made


def too_large(size: int | None, limit: int) -> str:
    """Return the reason of a file that is over the byte limit; `size` is None where only that is known."""
    amount = f"{size:,} bytes are" if size is not None else "it is"
    return f"too many bytes: {amount} more than images.max_bytes {limit:,}; shrink the image or raise the limit"
