"""Reads the `images` cell of a record: texts, bytes, and objects of shops and data sets that wrap them."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping

from caslie_ray.tasks._errors import RowError
from caslie_ray.tasks._parsing import as_text, decoded, is_missing, structured
from caslie_ray.tasks._sample import ImageRef, UnreadableImage

__all__ = ["read_references"]

# The keys of an image object, best quality first; case, spaces and underscores are ignored.
_KEYS = (
    "bytes", "path", "hires", "highres", "highresolution", "original", "full", "fullsize", "xlarge", "large", "big",
    "imageurl", "url", "src", "contenturl", "href", "link", "uri", "imagepath", "filepath", "filename", "base64", "b64",
    "b64json", "image", "img", "picture", "photo", "source", "data", "file", "medium", "small", "thumb", "thumbnail",
    "thumbnailurl",
)  # fmt: skip
_DEPTH = 4
_SHOWN = 200


def read_references(value: object, count: int) -> tuple[ImageRef | None, ...]:
    """Return one reference per product, in order; None for a product without one.

    Args:
        value: one reference or a list. A reference is a text, bytes, or an object, of which the known key of the best
            quality is read. An object of lists is read as a list of objects.
        count: number of products of the sample.

    Raises:
        RowError: there are more references than products, or the cell cannot be decoded.
    """
    cell = structured(value, "images")
    if isinstance(cell, Mapping):
        cell = _transposed(cell)
    items: list[object] = list(cell) if isinstance(cell, (list, tuple)) else [cell]
    if len(items) > count:
        raise RowError(f"{len(items)} images for {count} product(s): give one image per product, in order")
    references = [_reference(item) for item in items]
    return tuple(references + [None] * (count - len(references)))


def _transposed(value: Mapping[object, object]) -> object:
    """Turn an object of lists, the form in which `datasets` saves a list of objects, back into that list."""
    lists = {key: cell for key, cell in value.items() if isinstance(cell, (list, tuple)) and _plain(key) in _KEYS}
    if not lists:
        return value
    lengths = {len(cell) for cell in lists.values()}
    if len(lengths) > 1:
        found = ", ".join(f"{key} {len(cell)}" for key, cell in lists.items())[:_SHOWN]
        raise RowError(
            f"images cannot be read: an object of lists that differ in length ({found}); give a list of objects"
        )
    return [{key: cell[at] for key, cell in lists.items()} for at in range(lengths.pop())]


def _plain(key: object) -> str:
    return re.sub(r"[\s_-]+", "", str(key)).lower()


def _reference(item: object, depth: int = 0) -> ImageRef | None:
    if isinstance(item, (bytes, bytearray)):
        return bytes(item) or None
    if isinstance(item, str) and item.lstrip()[:1] in ("{", "["):
        item = decoded(item)
    if isinstance(item, (list, tuple)) and len(item) == 1:
        item = item[0]
    if isinstance(item, Mapping) and depth < _DEPTH:
        return _of_object(item, depth)
    if isinstance(item, (bytes, bytearray)):
        return bytes(item) or None
    text = as_text(item)
    if isinstance(item, (list, tuple)) and len(item) > 1:
        return UnreadableImage(f"several images for one product: {len(item)} are listed; give one", text[:_SHOWN])
    return text or None


def _of_object(item: Mapping[object, object], depth: int) -> ImageRef | None:
    cells = {_plain(key): cell for key, cell in item.items()}
    # A flag or a size is not a reference: `{"large": true, "url": …}`.
    known = [cells[key] for key in _KEYS if key in cells and not isinstance(cells[key], (bool, int, float))]
    for cell in known:
        if not _is_empty(cell):
            return _reference(cell, depth + 1)
    if known or all(map(_is_empty, item.values())):
        return None
    found = ", ".join(sorted(map(as_text, item)))[:_SHOWN]
    reason = f"unsupported image object: none of its keys is read ({found}); give the reference as path, url or bytes"
    return UnreadableImage(reason, reprlib.repr(dict(item)))


def _is_empty(cell: object) -> bool:
    return is_missing(cell) or cell == b""
