"""From whatever a picture file holds to RGB: palettes, alpha, CMYK, 16 and 32 bits, floats."""

from __future__ import annotations

import numpy as np
from PIL import Image

__all__ = ["to_rgb"]

_WHITE = (255, 255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the picture in mode RGB: transparency over white, deep values scaled and never clipped."""
    if image.mode.startswith(("I", "F")):
        return _scaled(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        straight = image.convert({"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", straight.size, _WHITE), straight).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Scale one deep channel to 8 bits, by the range of its type where that is known, else by its values."""
    values = np.asarray(image).astype(np.float64)
    known = values[np.isfinite(values)]
    values = np.nan_to_num(values, nan=0.0, posinf=known.max(initial=0.0), neginf=known.min(initial=0.0))
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    elif low >= 0.0 and image.mode == "F" and high <= 1.0:
        low, high = 0.0, 1.0
    elif low >= 0.0 and high <= 255.0:
        low, high = 0.0, 255.0
    elif low >= 0.0 and high <= 65535.0 and image.mode == "I":
        low, high = 0.0, 65535.0
    span = high - low
    scaled = (values - low) * (255.0 / span) if span > 0 else np.zeros_like(values)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
