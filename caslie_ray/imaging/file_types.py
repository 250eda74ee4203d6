"""File type detection for bytes that are not a usable image, so that a reject says what was found."""

from __future__ import annotations

__all__ = ["looks_like"]

_MARKS = (
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "gzip data"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PAR1", "a Parquet file"),
    (b"8BPS", "a Photoshop file"),
    (b"\x1aE\xdf\xa3", "a WebM video"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the real file with `git lfs pull`"),
)
_BRANDS = {
    b"avif": "an AVIF image",
    b"avis": "an AVIF image",
    b"heic": "a HEIC image",
    b"mif1": "a HEIF image",
}


def looks_like(data: bytes) -> str:
    """Return the file type that the first bytes of `data` suggest, with an article: ``"an HTML page"``."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a video")
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")) or b"<body" in head:
        return "an HTML page"
    if b"<svg" in head:
        return "an SVG drawing"
    if head.startswith(b"<"):
        return "XML"
    if head.startswith((b"{", b"[")):
        return "JSON"
    try:
        text = data[:256].decode("utf-8")
    except UnicodeDecodeError:
        return "unknown binary data"
    return "plain text" if text.isprintable() or "\n" in text else "unknown binary data"
