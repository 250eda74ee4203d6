"""Encoding of stored images: PNG for lossless sources, JPEG for lossy ones and for large photos."""

from __future__ import annotations

import io

from PIL import Image

__all__ = ["encoded", "is_lossless"]

_QUALITY = 95
_SMALL_PNG = 100_000  # bytes


def is_lossless(source: Image.Image, data: bytes) -> bool:
    """Return whether a file stores its pixels without loss."""
    if source.format == "WEBP":
        exact, lossy = data.find(b"VP8L"), data.find(b"VP8 ")
        return exact >= 0 and not 0 <= lossy < exact
    if source.format == "TIFF":
        return source.info.get("compression") != "jpeg"
    return source.format not in ("JPEG", "MPO")


def encoded(image: Image.Image, lossless: bool) -> bytes:
    """Encode an RGB image; a lossless source becomes a JPEG only if its PNG is large and at least 3 times the JPEG."""
    png = _saved(image, "PNG") if lossless else b""
    if lossless and len(png) <= _SMALL_PNG:
        return png
    jpeg = _saved(image, "JPEG", quality=_QUALITY, subsampling=0)
    return png if lossless and len(png) < 3 * len(jpeg) else jpeg


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    sink = io.BytesIO()
    # A copy without `info`, so that no profile, comment or EXIF of the source is saved.
    plain = Image.new("RGB", image.size)
    plain.paste(image)
    plain.save(sink, kind, **options)
    return sink.getvalue()
