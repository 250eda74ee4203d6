"""What the header says of the memory is an upper bound of what decoding takes, and not far above."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from PIL import Image

from caslie_ray.imaging._jpeg import read_jpeg
from caslie_ray.imaging._memory import decoding_memory
from caslie_ray.imaging.decoder_process import DecoderProcess
from caslie_ray.imaging.limits import DecodeLimits
from tests.dataset.world import encoded, picture

LIMITS = DecodeLimits(max_side=500, max_pixels=10**9, max_memory=4 * 10**9, max_scans=100, decode_timeout_s=60.0)
SIZE = (3000, 2400)


def translucent() -> Image.Image:
    image = picture(size=SIZE)
    image.putalpha(128)
    return image


def values(kind: type) -> Image.Image:
    return Image.fromarray(np.arange(SIZE[0] * SIZE[1]).astype(kind).reshape(SIZE[1], SIZE[0]))


CASES: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: encoded(picture(size=SIZE), "JPEG"),
    "JPEG progressive": lambda: encoded(picture(size=SIZE), "JPEG", progressive=True, subsampling=0),
    "JPEG progressive CMYK": lambda: encoded(picture(size=SIZE).convert("CMYK"), "JPEG", progressive=True),
    "PNG alpha": lambda: encoded(translucent(), compress_level=1),
    "PNG 16 bits": lambda: encoded(values(np.uint16), compress_level=1),
    "PNG palette": lambda: encoded(picture(size=SIZE).quantize(16), transparency=0, compress_level=1),
    "GIF": lambda: encoded(picture(size=SIZE).quantize(16), "GIF"),
    "WebP": lambda: encoded(picture(size=SIZE), "WEBP", method=0),
    "WebP alpha": lambda: encoded(translucent(), "WEBP", lossless=True, method=0, quality=0),
    "BMP": lambda: encoded(picture(size=SIZE), "BMP"),
    "TIFF, one strip": lambda: encoded(picture(size=SIZE), "TIFF", compression="tiff_lzw", tiffinfo={278: SIZE[1]}),
    "TIFF on its side": lambda: encoded(picture(size=SIZE), "TIFF", compression="tiff_lzw", tiffinfo={274: 6}),
    "TIFF of JPEGs": lambda: encoded(picture(size=SIZE), "TIFF", compression="jpeg"),
    "TIFF floats": lambda: encoded(values(np.float32), "TIFF", compression="tiff_lzw"),
    "PNG, wide": lambda: encoded(Image.new("L", (2_000_000, 2))),
    "PNG, tall": lambda: encoded(Image.new("L", (2, 2_000_000))),
}


def peak(pid: int | None) -> int:
    """The most memory that a process had, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_bounds_the_memory(name: str) -> None:
    data = CASES[name]()
    with Image.open(io.BytesIO(data)) as source:
        estimate = decoding_memory(source, data, 500, read_jpeg(data, 100))
    decoder = DecoderProcess()
    try:
        decoder.decode(encoded(picture()), LIMITS)
        before = psutil.Process(decoder.pid).memory_info().rss
        decoder.decode(data, LIMITS)
        taken = peak(decoder.pid) - before
    finally:
        decoder.close()
    assert estimate / 5 < taken < estimate
