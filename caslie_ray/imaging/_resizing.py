"""Resizing to the stored size, and rotation to upright.

A model's own resizing to its input size is done by its processor, see `caslie_ray.engines._preprocessor`.
"""

from __future__ import annotations

from PIL import Image

__all__ = ["read_orientation", "resized"]

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def resized(image: Image.Image, max_side: int, orientation: int) -> Image.Image:
    """Return the image with no side longer than `max_side` pixels (Lanczos; never enlarged), and upright.

    Args:
        image: an RGB image, as in the file.
        max_side: longest side in pixels.
        orientation: EXIF orientation, 1 to 8.
    """
    width, height = image.size
    if max(width, height) > max_side:
        scale = max_side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def read_orientation(source: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, 1 if it has none."""
    try:
        return int(source.getexif().get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        return 1
