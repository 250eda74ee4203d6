"""Stored bytes, and so image ids, equal those of a plain conversion of the image in one piece."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from caslie_ray.dataset._decoding import decode
from caslie_ray.profiles import ImageSettings
from tests.dataset.world import encoded, picture

LIMITS = ImageSettings()
# More than one band of rows, and a last band that is not full.
SIZE = (1100, 701)


def whole_image(data: bytes) -> bytes:
    """Convert an image that is not stored as it is, with full-size copies in every step."""
    source = Image.open(io.BytesIO(data))
    lossless = source.format not in ("JPEG", "MPO") and not (source.format == "WEBP" and b"VP8 " in data)
    source.load()
    if source.mode.startswith(("I", "F")):
        image = scaled(source).convert("RGB")
    elif source.mode in ("RGBA", "LA", "PA") or "transparency" in source.info:
        straight = source.convert("RGBA")
        white = Image.new("RGBA", straight.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, straight).convert("RGB")
    else:
        image = source.convert("RGB")
    scale = 500 / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    image = Image.fromarray(np.asarray(image))
    png, jpeg = encoded(image), encoded(image, "JPEG", quality=95, subsampling=0)
    return png if lossless and (len(png) <= 100_000 or len(png) < 3 * len(jpeg)) else jpeg


def scaled(image: Image.Image) -> Image.Image:
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
    rest = (values - low) * (255.0 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(np.rint(rest).astype(np.uint8))


def floats(least: float, most: float, *odd: float) -> Image.Image:
    values = np.linspace(least, most, SIZE[0] * SIZE[1]).astype(np.float32)
    values[[5000 * (at + 1) for at in range(len(odd))]] = odd
    return Image.fromarray(values.reshape(SIZE[1], SIZE[0]))


def translucent() -> Image.Image:
    image = picture(size=SIZE)
    image.putalpha(picture(1, SIZE).convert("L"))
    return image


CASES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(picture(size=SIZE), "JPEG"),
    "JPEG progressive": lambda: encoded(picture(size=SIZE), "JPEG", progressive=True),
    "JPEG grey": lambda: encoded(picture(size=SIZE).convert("L"), "JPEG"),
    "JPEG CMYK": lambda: encoded(picture(size=SIZE).convert("CMYK"), "JPEG"),
    "PNG": lambda: encoded(picture(size=SIZE)),
    "PNG alpha": lambda: encoded(translucent()),
    "PNG grey and alpha": lambda: encoded(translucent().convert("LA")),
    "PNG palette": lambda: encoded(picture(size=SIZE).quantize(32)),
    "PNG palette with a clear colour": lambda: encoded(picture(size=SIZE).quantize(32), transparency=3),
    "PNG grey with a clear value": lambda: encoded(picture(size=SIZE).convert("L"), transparency=100),
    "PNG bilevel": lambda: encoded(picture(size=SIZE).convert("1")),
    "PNG 16 bits": lambda: encoded(Image.fromarray(np.arange(771100, dtype=np.uint16).reshape(701, 1100))),
    "GIF": lambda: encoded(picture(size=SIZE).quantize(32), "GIF", transparency=3),
    "WebP": lambda: encoded(picture(size=SIZE), "WEBP"),
    "WebP alpha": lambda: encoded(translucent(), "WEBP", lossless=True),
    "BMP": lambda: encoded(picture(size=SIZE), "BMP"),
    "TIFF LZW": lambda: encoded(picture(size=SIZE), "TIFF", compression="tiff_lzw"),
    "TIFF CMYK": lambda: encoded(picture(size=SIZE).convert("CMYK"), "TIFF"),
    "TIFF YCbCr": lambda: encoded(picture(size=SIZE).convert("YCbCr"), "TIFF"),
    "TIFF 16 bits": lambda: encoded(Image.fromarray(np.arange(771100, dtype=np.uint16).reshape(701, 1100)), "TIFF"),
    "TIFF 32 bits": lambda: encoded(Image.fromarray(np.arange(771100, dtype=np.int32).reshape(701, 1100)), "TIFF"),
    "TIFF 32 bits, negative": lambda: encoded(
        Image.fromarray(np.arange(-99, 771001, dtype=np.int32).reshape(701, 1100)), "TIFF"
    ),
    "TIFF floats to 1": lambda: encoded(floats(0.2, 0.9), "TIFF"),
    "TIFF floats to 255": lambda: encoded(floats(0.0, 200.0), "TIFF"),
    "TIFF floats": lambda: encoded(floats(-3.0, 700.0), "TIFF"),
    "TIFF floats, not a number": lambda: encoded(floats(20.0, 700.0, float("nan")), "TIFF"),
    "TIFF floats, infinite": lambda: encoded(floats(-900.0, -3.0, float("inf"), float("-inf")), "TIFF"),
    "TIFF floats, none finite": lambda: encoded(Image.new("F", (600, 500), float("nan")), "TIFF"),
    "wide": lambda: encoded(picture(size=(300_000, 2)), "PNG"),
    "tall": lambda: encoded(picture(size=(2, 300_000)), "BMP"),
    "small palette": lambda: encoded(picture().quantize(8), "GIF"),
}


@pytest.mark.parametrize("name", CASES)
def test_stored_bytes_do_not_depend_on_how_they_are_made(name: str) -> None:
    data = CASES[name]()
    assert decode(data, LIMITS).data == whole_image(data)
