"""Images as base64 text: with or without padding and line breaks, in the standard or the URL-safe alphabet."""

from __future__ import annotations

import base64
import re

__all__ = ["decode_base64", "read_base64_image"]

_OTHER = re.compile(r"[^A-Za-z0-9+/]")
_URL_SAFE = str.maketrans("-_", "+/")
_BYTES_LITERAL = re.compile(r"b(['\"])(.*)\1", re.DOTALL)
_SPACE = re.compile(r"\s+|\\[nr]")
_HEAD = 64
# Start of a frame, tables, application data, or a comment: what may follow the start of an image.
_JPEG_MARKERS = frozenset(bytes([code]) for code in (*range(0xC0, 0xC5), 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))


def decode_base64(text: str) -> bytes:
    """Return the bytes that base64 text holds.

    Raises:
        ValueError: it is no base64, or was cut off in the middle of a byte.
    """
    body = _SPACE.sub("", text).translate(_URL_SAFE).rstrip("=")
    if other := _OTHER.search(body):
        raise ValueError(f"character {other[0]!r} at {other.start():,} is not base64")
    if len(body) % 4 == 1:
        raise ValueError(f"{len(body):,} characters of base64 end in the middle of a byte: the text was cut off")
    return base64.b64decode(body + "=" * (-len(body) % 4))


def read_base64_image(text: str) -> bytes | None:
    """Return the image that a text without ``data:`` holds as base64; None where the text is something else.

    A path may consist of the same characters, so the first bytes must be those of an image format.
    """
    text = text.strip()
    if literal := _BYTES_LITERAL.fullmatch(text):
        text = literal[2]
    try:
        if not _is_image(decode_base64(_SPACE.sub("", text[: 2 * _HEAD])[:_HEAD]), whole=None):
            return None
        data = decode_base64(text)
    except ValueError:
        return None
    return data if _is_image(data, whole=len(data)) else None


def _is_image(data: bytes, whole: int | None) -> bool:
    """Whether bytes start as an image does; `whole` is their number if all bytes are given."""
    if data.startswith(b"\xff\xd8\xff"):
        return data[3:4] in _JPEG_MARKERS
    if data.startswith(b"BM"):  # other data may begin with BM too: the header states the size of the file
        return whole is None or int.from_bytes(data[2:6], "little") == whole
    if data.startswith(b"RIFF"):
        return data[8:12] == b"WEBP"
    if data[4:8] == b"ftyp":
        return data[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
    return data.startswith((b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"))
