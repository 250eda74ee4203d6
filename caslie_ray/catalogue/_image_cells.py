"""Image references in the cells of a catalogue, where one cell may have several."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator

from caslie_ray.catalogue._format import Format
from caslie_ray.tasks import ImageRef, RowError, UnreadableImage, as_text, is_missing, read_references, structured

__all__ = ["image_references", "split_references"]

_DEPTH = 4
_SHOWN = 200
_PARTS = 10_000  # ten times the images of a product; base64 text may have more lines, which belong together
_MAIN = "MAIN"
_SCHEME = re.compile(r"\s*+(?:data:|[a-z][a-z0-9+.-]{1,20}+://)", re.IGNORECASE)
_DATA = re.compile(r"\s*+data:", re.IGNORECASE)
_WEB = re.compile(r"\s*+https?://", re.IGNORECASE)
_IMAGE_PATH = re.compile(
    r"\.(?:avif|bmp|gif|heic|heif|jfif|jpe|jpeg|jpg|png|svg|tif|tiff|webp)(?=$|[?#])", re.IGNORECASE
)


def image_references(cell: object, format: Format) -> list[ImageRef]:
    """Return the references in a cell, in order.

    Args:
        cell: a reference, a list, an object, or JSON of these, as `native` returns it. What cannot be read is an
            `UnreadableImage` in its place.
        format: separators of references, and what a reference may be.
    """
    return [each for each in _of_cell(cell, format) if each not in format.no_image]


def split_references(text: str, separators: str) -> list[str]:
    """Return the references in a text, at the separators between them.

    A bar is always a separator; a comma, a semicolon or a line break only if an image follows: a URL, or a path with an
    image's extension. So commas in URLs, and in the `data:` URI of an image, are none.
    """
    if not separators:
        return [text.strip()] if text.strip() else []
    parts = re.split(f"([{re.escape(separators)}])", text, maxsplit=_PARTS)
    references: list[list[str]] = [[parts[0].lstrip()]]
    end = parts[0]  # the last part of this reference that is not blank
    for separator, part in zip(parts[1::2], parts[2::2], strict=True):
        if _is_next(separator, part, references[-1][0], end):
            references.append([part.lstrip()])
            end = part
        else:
            references[-1] += (separator, part)
            end = part if part.strip() else end
    found = ("".join(each).strip(f"{separators} \t\r\n") for each in references)
    return [each for each in found if each]


def _is_next(separator: str, part: str, start: str, end: str) -> bool:
    """Whether a part between separators starts a reference, after one with this start and end."""
    if _SCHEME.match(part) is not None:
        return True
    if _DATA.match(start) is not None:
        return False
    if separator == "|":
        return bool(part.strip())
    if _IMAGE_PATH.search(part.rstrip()) is None:
        return False
    # `w_300,h_300/a.jpg` is one path. A URL has no white space.
    is_complete = _IMAGE_PATH.search(end.rstrip()) is not None or (part[:1].isspace() and _WEB.match(start) is not None)
    return separator == "\n" or is_complete


def _of_cell(cell: object, format: Format, depth: int = 0) -> Iterator[ImageRef]:
    try:
        cell = structured(cell, "images")
        if format.main_first:
            cell = _main_first(cell)
        if isinstance(cell, str):
            for text in split_references(as_text(cell), format.separators):
                is_rooted = format.relative_paths and text[:1] == "/" and text[:2] != "//"
                yield text[1:] if is_rooted and _IMAGE_PATH.search(text) else text
        elif isinstance(cell, list) and depth < _DEPTH:
            for item in cell:
                yield from _of_cell(item, format, depth + 1)
        elif not is_missing(cell):
            yield from (each for each in read_references(cell, _count(cell)) if each is not None)
    except RowError as error:
        yield UnreadableImage(str(error), cell[:_SHOWN] if isinstance(cell, str) else reprlib.repr(cell))


def _count(cell: object) -> int:
    """Return how many references a value can have: an object of lists is a list of objects."""
    if isinstance(cell, list):
        return len(cell)
    lists = (item for item in cell.values() if isinstance(item, list)) if isinstance(cell, dict) else ()
    return max(map(len, lists), default=1) or 1


def _main_first(cell: object) -> object:
    """Move the object with the variant `MAIN` to the front, in a list of objects or an object of lists."""
    if isinstance(cell, list):
        return sorted(cell, key=lambda item: not (isinstance(item, dict) and item.get("variant") == _MAIN))
    variants = cell.get("variant") if isinstance(cell, dict) else None
    if not isinstance(cell, dict) or not isinstance(variants, list):
        return cell
    order = sorted(range(len(variants)), key=lambda at: variants[at] != _MAIN)
    return {
        key: [item[at] for at in order] if isinstance(item, list) and len(item) == len(order) else item
        for key, item in cell.items()
    }
