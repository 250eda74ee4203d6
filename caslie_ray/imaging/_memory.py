"""Estimates the memory of decoding an image from its header, before anything is allocated."""

from __future__ import annotations

from struct import unpack_from
from typing import Any

from PIL import Image

from caslie_ray.imaging._colour import BAND_BYTES, is_rgb
from caslie_ray.imaging._jpeg import JpegHeader

__all__ = ["decoding_memory", "webp_memory", "webp_size"]

_POINTER = 8
_FIXED = (16 << 20) + BAND_BYTES
_FILE_COPIES = 3
_SMALL_MODES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
# Bytes per pixel: two canvases of the animation decoder, its output and the lossless decoder's buffer, all RGBA.
_WEBP_BYTES = 16
# Bytes per pixel: Pillow's decoder for run-length encoded BMP collects them in Python.
_RLE_BYTES = 4
# Bytes per source row or column: 6 Lanczos coefficients of 8 bytes.
_RESIZE_BYTES = 48

_TIFF_BITS, _TIFF_ORIENTATION, _TIFF_SAMPLES, _TIFF_ROWS, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = (
    258,
    274,
    277,
    278,
    322,
    323,
)


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height in the header of a WebP file; None if it is not one."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def webp_memory(width: int, height: int) -> int:
    """Return the bytes of libwebp's canvases, in addition to the decoded image."""
    return _WEBP_BYTES * width * height


def decoding_memory(source: Image.Image, data: bytes, max_side: int, jpeg: JpegHeader | None) -> int:
    """Return an upper bound of the memory for decoding, converting and resizing an opened image, in bytes.

    Args:
        source: the image; its pixels are not loaded yet.
        data: the file.
        max_side: longest side of the stored image in pixels.
        jpeg: the properties of a JPEG, from its header.
    """
    width, height = source.size
    own = _SMALL_MODES.get(source.mode, 4) * width * height + _POINTER * height
    total = _FIXED + _FILE_COPIES * len(data) + own + _buffers(source, own, jpeg)
    if not is_rgb(source):
        total += 4 * width * height + _POINTER * height
    if max(width, height) > max_side:
        columns = max(1, round(width * max_side / max(width, height)))
        total += _RESIZE_BYTES * (width + height) + (4 * columns + _POINTER) * height
    return total


def _buffers(source: Any, own: int, jpeg: JpegHeader | None) -> int:
    """Return the memory of the format's decoder, in addition to the image itself."""
    decoder = source.tile[0][0] if source.tile else ""
    if jpeg is not None:
        return jpeg.coefficient_bytes
    if source.format == "WEBP":
        return webp_memory(source.width, source.height)
    if source.format == "BMP":
        return _RLE_BYTES * source.width * source.height if decoder == "bmp_rle" else 0
    if source.format == "TIFF":
        upright = source.tag_v2.get(_TIFF_ORIENTATION, 1) == 1  # otherwise Pillow makes an upright copy
        return (0 if upright else own) + (_segment(source) if decoder == "libtiff" else 0)
    if source.format == "GIF":
        return own
    return 0


def _segment(source: Any) -> int:
    """Return the memory for one decoded tile or strip of a TIFF, and for its coefficients if it is a JPEG."""
    tags = source.tag_v2
    bits, samples = tags.get(_TIFF_BITS, (8,)), int(tags.get(_TIFF_SAMPLES, 1))
    width = int(tags.get(_TIFF_TILE_WIDTH, source.width))
    rows = int(tags.get(_TIFF_TILE_HEIGHT, min(int(tags.get(_TIFF_ROWS, source.height)), source.height)))
    sample = max(int(one) for one in bits) / 8
    pixel = max(4, samples * sample)  # some modes are decoded to RGBA
    coefficients = 2 * samples if source.info.get("compression") in ("jpeg", "tiff_jpeg") else 0
    return int(width * rows * (pixel + coefficients))
