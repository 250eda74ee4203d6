"""Image references of a data set, and the locators that they resolve to.

A reference is written in one of five ways: a URL, a path or object-store URI, a ``data:`` URI, an image as base64
text, or the bytes themselves. It is turned into one string, the locator, by which equal references are fetched once:

=================  ==========================================================================
``url:<URL>``      to be downloaded
``file:<path>``    an absolute path on this machine, below a root
``store:<URI>``    an object in a store, below a root; see `_roots`
``bytes:<hash>``   bytes that came with the row
``bad:<reason>``   nothing that may be fetched, or could be
=================  ==========================================================================

References are untrusted: a row chooses neither the store and its credentials nor the folder that is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, unquote_to_bytes

from caslie_ray.dataset._base64_images import decode_base64, read_base64_image
from caslie_ray.dataset._roots import STORES, RefusedPath, Roots
from caslie_ray.dataset._urls import clean_url
from caslie_ray.hashing import content_id
from caslie_ray.tasks import ImageRef, UnreadableImage

__all__ = ["Reference", "read_reference"]

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")
_BASE64_HEAD = re.compile(r"(?:data:[^,]{0,200}?|(?:image/[\w.+-]{1,40}\s*;)?\s*)base64\s*,", re.IGNORECASE)
_SHOWN = 60
_PATH_BYTES = 4096
_NAME_BYTES = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """One image reference of a sample.

    Attributes:
        locator: what is fetched; equal for references to the same thing.
        source: the reference as the data set has it; for bytes, their position; an image as text is cut.
        data: gives the bytes where they came with the row.
    """

    locator: str
    source: str
    data: Callable[[], bytes] | None = None


def read_reference(value: ImageRef | None, roots: Roots, place: str) -> Reference:
    """Read one reference. Nothing is opened or looked up.

    Args:
        value: as the data set has it; None where the row names no image at this position.
        roots: where relative paths start, and the roots that paths and URIs must be below.
        place: the position for a reader, such as ``"rows.parquet:12, image 1"``.
    """
    if value is None or value == "":
        return Reference("bad:missing image: the row names none for this product; add its reference", "")
    if isinstance(value, UnreadableImage):
        return Reference(f"bad:{value.reason}", value.source)
    if isinstance(value, bytes):
        data = read_base64_image(value.decode("ascii", "replace")) if value[:1] in b"/iRUQSTA" else None
        return _bytes(data or value, f"{place} ({len(data or value):,} bytes)")
    scheme = _SCHEME.match(value)
    name = scheme[1].lower() if scheme else ""
    head = _BASE64_HEAD.match(value)
    if name == "data" or head:
        return _data_uri(value)
    if not scheme and (image := read_base64_image(value)) is not None:
        return _bytes(image, _cut(value))
    if value.startswith("//"):
        return Reference(_url("https:" + value), value)
    if name in ("http", "https"):
        return Reference(_url(value), value)
    slashes = value[len(name) + 1 :].startswith("//")
    if name == "file":
        path = unquote(value[len(name) + 1 :])
        if slashes:
            host, slash, path = path[2:].partition("/")
            path = slash + path
            if host not in ("", "localhost"):
                return Reference("bad:unsupported reference: the file is on another host; give a URL", value)
        return _path(path, roots, value)
    if name in STORES and slashes:
        return _file(value, roots.object, value, in_store=True)
    if scheme and slashes:
        reason = f"unsupported reference: {name}:// is not read; give http(s), a path or a store"
        return Reference(f"bad:{reason}", value)
    return _path(value, roots, value)


def _bytes(data: bytes, source: str) -> Reference:
    return Reference("bytes:" + content_id(data), source, lambda: data)


def _cut(source: str) -> str:
    """Keep the start of an image that is written as text, and its length."""
    return source if len(source) <= 100 else f"{source[:_SHOWN]}… ({len(source):,} characters)"


def _path(path: str, roots: Roots, source: str) -> Reference:
    if path.startswith("/"):
        return _file(path, roots.absolute, source, in_store=False)
    return _file(path, roots.relative, source, in_store=bool(roots.base.store))


def _file(path: str, locate: Callable[[str], str], source: str, *, in_store: bool) -> Reference:
    if "\0" in path:
        return Reference("bad:unsupported reference: the path holds a NUL character", source)
    # The key of an object has no limit for a part between slashes.
    if len(path) > _PATH_BYTES or (not in_store and max(map(len, path.split("/"))) > _NAME_BYTES):
        reason = (
            f"unsupported reference: {len(path):,} characters are too long for a path; for an image as base64 write"
            " data:image/jpeg;base64, before it"
        )
        return Reference(f"bad:{reason}", _cut(source))
    try:
        return Reference(locate(path), source)
    except RefusedPath as error:
        return Reference(f"bad:{error}", source)


def _url(url: str) -> str:
    try:
        return "url:" + clean_url(url)
    except ValueError as error:
        return f"bad:{error}"


def _data_uri(value: str) -> Reference:
    mend = "write data:image/jpeg;base64, and the whole image in base64"
    head = _BASE64_HEAD.match(value)
    if head:
        body = value[head.end() :]
    else:
        _, comma, body = value.partition(",")
        if not comma:
            return Reference(f"bad:invalid data URI: it has no comma; {mend}", _cut(value))
        # Percent-encoding is what a data URI has without the word base64; some writers forget the word.
        data = read_base64_image(unquote(body))
        return _bytes(data if data is not None else unquote_to_bytes(body), _cut(value))
    try:
        return _bytes(decode_base64(unquote(body) if "%" in body else body), _cut(value))
    except ValueError as error:
        return Reference(f"bad:invalid data URI: {error}; {mend}", _cut(value))
