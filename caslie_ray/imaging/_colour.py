"""Conversion of all Pillow modes to RGB: palettes, alpha, CMYK, 16 and 32 bits, floats.

Images are converted in bands of rows, since intermediate copies at full size would take several times the memory of
the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["BAND_BYTES", "is_rgb", "to_rgb"]

_WHITE = (255, 255, 255, 255)
_BAND_PIXELS = 1 << 18
_Floats = NDArray[np.float64]

BAND_BYTES = 40 * _BAND_PIXELS
"""Memory of the intermediate copies of one band, in bytes."""


def is_rgb(image: Image.Image) -> bool:
    """Return whether the image needs no conversion."""
    return image.mode == "RGB" and "transparency" not in image.info


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in mode RGB; the image itself if it already is.

    Transparency is composited over white. Values of 16 and 32 bits and floats are scaled, not clipped.
    """
    if is_rgb(image):
        return image
    values = _Values.of(image) if image.mode.startswith(("I", "F")) else None
    converted = Image.new("RGB", image.size)
    for top, band in _bands(image):
        converted.paste(values.scaled(band) if values else _flat(band), (0, top))
    return converted


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(image.height, top + rows)))


def _flat(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        straight = image.convert({"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", straight.size, _WHITE), straight).convert("RGB")
    return image.convert("RGB")


class _Values(NamedTuple):
    """Scaling of the values of a channel of more than 8 bits to 8 bits.

    Attributes:
        low: the value that becomes 0.
        high: the value that becomes 255.
        least: replaces minus infinity.
        most: replaces infinity. NaN is replaced by 0.
    """

    low: float
    high: float
    least: float = 0.0
    most: float = 0.0

    @classmethod
    def of(cls, image: Image.Image) -> _Values:
        """Use the range of the type if it is known, otherwise that of the values."""
        if image.mode.startswith("I;16"):
            return cls(0.0, 65535.0)
        finite = [_finite_range(band) for _, band in _bands(image)]
        low, high = min(low for low, _, _ in finite), max(high for _, high, _ in finite)
        least, most = min(low, 0.0), max(high, 0.0)
        if not all(complete for _, _, complete in finite):
            # Values that are not finite count as their replacements.
            replacing = cls(low, high, least, most)
            ranges = [(values.min(), values.max()) for _, band in _bands(image) for values in [replacing._floats(band)]]
            low, high = float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
        if low >= 0.0 and image.mode == "F" and high <= 1.0:
            low, high = 0.0, 1.0
        elif low >= 0.0 and high <= 255.0:
            low, high = 0.0, 255.0
        elif low >= 0.0 and high <= 65535.0 and image.mode == "I":
            low, high = 0.0, 65535.0
        return cls(low, high, least, most)

    def scaled(self, band: Image.Image) -> Image.Image:
        """Return the band in mode RGB."""
        span = self.high - self.low
        values = self._floats(band)
        scaled = (values - self.low) * (255.0 / span) if span > 0 else np.zeros_like(values)
        return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")

    def _floats(self, band: Image.Image) -> _Floats:
        values = np.asarray(band).astype(np.float64)
        return np.nan_to_num(values, nan=0.0, posinf=self.most, neginf=self.least)


def _finite_range(band: Image.Image) -> tuple[float, float, bool]:
    """Return the minimum and maximum finite value (infinite if there is none), and whether all are finite."""
    values = np.asarray(band)
    finite = np.isfinite(values)
    complete = bool(finite.all())
    known = values if complete else values[finite]
    return (float(known.min()), float(known.max()), complete) if known.size else (math.inf, -math.inf, complete)
