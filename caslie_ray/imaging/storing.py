"""Decodes an image file in this process and converts it to the stored image.

The stored image is an RGB JPEG or PNG, upright, with no side longer than the limit. The same bytes and limits give the
same stored bytes, and so the same image_id, on every machine with the same Pillow.

A JPEG or PNG that already meets this is stored unchanged. Otherwise lossy sources become a JPEG of quality 95, and
lossless ones a PNG, unless it is a photo whose JPEG is at most a third of the PNG.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from caslie_ray.imaging._colour import is_rgb, to_rgb
from caslie_ray.imaging._encoding import encoded, is_lossless
from caslie_ray.imaging._jpeg import read_jpeg
from caslie_ray.imaging._memory import decoding_memory, webp_memory, webp_size
from caslie_ray.imaging._resizing import read_orientation, resized
from caslie_ray.imaging.file_types import looks_like
from caslie_ray.imaging.limits import DecodeLimits

__all__ = ["ImageError", "StoredImage", "store"]

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A stored image.

    Attributes:
        data: JPEG or PNG bytes, RGB.
        width: in pixels.
        height: in pixels.
    """

    data: bytes
    width: int
    height: int


class ImageError(Exception):
    """An image that cannot be used.

    Attributes:
        reason: what is wrong and how to fix it: a short name, a colon, the details.
        retryable: whether the same reference may succeed later.
    """

    def __init__(self, reason: str, retryable: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retryable = retryable


def store(data: bytes, limits: DecodeLimits) -> StoredImage:
    """Decode an image file and return the stored image; of an animation, its first frame.

    Limits are checked against the header before pixels are decoded. Hostile files may still crash or hang a decoder, or
    take more memory than their header says: call this in a process that can be killed.

    Args:
        data: the bytes of a JPEG, PNG, GIF, WebP, BMP or TIFF file.
        limits: the caller must enforce `decode_timeout_s`.

    Raises:
        ImageError: the file is truncated, damaged, not an image, or over a limit.
    """
    with warnings.catch_warnings():
        # Pillow warns about large and unusual files; our own limits decide.
        warnings.simplefilter("ignore")
        try:
            return _stored(data, limits)
        except ImageError:
            raise
        except UnidentifiedImageError:
            raise ImageError(_unidentified(data)) from None
        except Image.DecompressionBombError:
            raise ImageError("too many pixels: more than is safe to decode; shrink the image") from None
        except MemoryError:
            raise ImageError(_too_much_memory("more", limits)) from None
        except Exception as error:  # hostile bytes make Pillow's readers raise almost anything
            detail = str(error).split("\n")[0][:200] or type(error).__name__
            raise ImageError(f"truncated or damaged image: {detail}; fetch or export it again") from None


def _too_much_memory(amount: str, limits: DecodeLimits) -> str:
    return (
        f"too much memory: decoding takes {amount} than images.max_memory {limits.max_memory:,} bytes;"
        " shrink the image or raise the limit"
    )


def _unidentified(data: bytes) -> str:
    starts = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF"}
    starts |= {b"MM\0*": "TIFF", b"RIFF": "WebP"}
    for mark, name in starts.items():
        if data.startswith(mark):
            found = f"it starts as a {name} but cannot be read"
            return f"truncated or damaged image: {found}; fetch or export it again"
    found = looks_like(data)
    return f"not an image: it looks like {found}; give a JPEG, PNG, GIF, WebP, BMP or TIFF"


def _check_size(width: int, height: int, limits: DecodeLimits) -> None:
    if width * height > limits.max_pixels:
        raise ImageError(
            f"too many pixels: {width} x {height} is more than images.max_pixels {limits.max_pixels:,};"
            " shrink the image or raise the limit"
        )
    if width < 1 or height < 1:
        raise ImageError(f"truncated or damaged image: its size is {width} x {height}")


def _check_cost(source: Image.Image, data: bytes, limits: DecodeLimits) -> None:
    """Refuse an opened image whose pixels would take too much memory or time."""
    jpeg = read_jpeg(data, limits.max_scans) if source.format in ("JPEG", "MPO") else None
    if jpeg is not None and jpeg.scans > limits.max_scans:
        raise ImageError(
            f"too many scans: this JPEG has more than images.max_scans {limits.max_scans:,};"
            " save it again or raise the limit"
        )
    _check_memory(decoding_memory(source, data, limits.max_side, jpeg), limits)


def _check_memory(size: int, limits: DecodeLimits) -> None:
    if size > limits.max_memory:
        raise ImageError(_too_much_memory(f"up to {size:,} bytes, more", limits))


def _stored(data: bytes, limits: DecodeLimits) -> StoredImage:
    canvas = webp_size(data)
    if canvas is not None:
        # Pillow allocates the canvas when it opens the file.
        _check_size(*canvas, limits)
        _check_memory(webp_memory(*canvas), limits)
    with Image.open(io.BytesIO(data), formats=FORMATS) as source:
        width, height = source.size
        _check_size(width, height, limits)
        _check_cost(source, data, limits)
        source.load()
        if source.format == "PNG" and _PNG_END not in data[-65536:]:
            # Pillow does not require the IEND chunk.
            raise ImageError("truncated or damaged image: the PNG has no end; fetch or export it again")
        orientation = read_orientation(source)
        fits = max(width, height) <= limits.max_side
        if fits and orientation == 1 and _is_plain(source, data):
            return StoredImage(data, width, height)
        lossless = is_lossless(source, data)
        image = to_rgb(source)
    image = resized(image, limits.max_side, orientation)
    return StoredImage(encoded(image, lossless), image.width, image.height)


def _is_plain(source: Image.Image, data: bytes) -> bool:
    """Return whether the file can be stored unchanged: one 8-bit RGB image without large metadata."""
    if source.format not in ("JPEG", "PNG") or not is_rgb(source) or getattr(source, "is_animated", False):
        return False
    if len(data) > 3 * source.width * source.height + 65536:
        return False
    if source.format == "PNG":
        # Byte 24 of a PNG is its bit depth; Pillow also opens 16-bit colour as RGB.
        return data[24] == 8
    return True
