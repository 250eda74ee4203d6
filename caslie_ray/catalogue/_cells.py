"""Cells of a catalogue as plain values and as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from caslie_ray.tasks import RowError, as_text, decoded

__all__ = ["cell_id", "cell_text", "has_binary", "native"]

_DEPTH = 20
_SENTENCE_ENDS = (".", "!", "?", ":", ";", ",")
# `[{"language_tag": "en_US", "value": "Mug"}]`, as Amazon has texts.
_LANGUAGE, _VALUE = "language_tag", "value"
_LANGUAGE_KEYS = frozenset((_LANGUAGE, _VALUE, "standardized_values"))


def native(value: object, depth: int = 0) -> object:
    """Return a cell in Python's own types: NaN is None, arrays are lists, and views are bytes."""
    if value is None or isinstance(value, (str, bytes, int)):
        return value
    if isinstance(value, (float, Decimal)):
        return None if value != value else value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if depth == _DEPTH:
        return _deep(value)
    if isinstance(value, Mapping):
        return {str(key): native(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [native(item, depth + 1) for item in value]
    # numpy's scalars and arrays
    to_list = getattr(value, "tolist", None)
    return native(to_list(), depth + 1) if callable(to_list) else str(value)


def cell_text(cell: object, levels: bool = False) -> str:
    """Return a cell as text; a missing or binary one is empty.

    Lists and objects, in JSON or as Python prints them too, are listed with commas. Of texts in several languages the
    English ones are taken, or else those of the first language.

    Args:
        cell: as `native` returns it.
        levels: whether a list goes from general to special, such as a category: then it is joined with `>`.
    """
    if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        try:
            found = decoded(cell, text=True)
        except RowError:
            found = cell
        cell = native(found) if isinstance(found, (list, dict)) else cell
    return _text(cell, levels)


def cell_id(cell: object) -> str:
    """Return a cell as an id; empty if it is missing, or neither a text nor a number. 12.0 is `12`."""
    if isinstance(cell, list) and len(cell) == 1:
        cell = cell[0]
    return "" if isinstance(cell, (list, dict)) else _text(cell, False)


def has_binary(cell: object) -> bool:
    """Whether a cell has bytes that are no text, which `cell_text` leaves out."""
    if isinstance(cell, bytes):
        return bool(cell) and not _text(cell, False)
    if isinstance(cell, dict):
        return any(map(has_binary, cell.values()))
    return isinstance(cell, list) and any(map(has_binary, cell))


def _deep(value: object) -> str:
    try:
        return str(value)
    except RecursionError:
        return ""


def _text(cell: object, levels: bool) -> str:
    match cell:
        case bool():
            return "true" if cell else "false"
        case int() | float() | Decimal():
            return _number(cell)
        case bytes():
            return _bytes_text(cell)
        case list():
            return _listed(cell, levels)
        case dict():
            texts = ((key, _text(item, False)) for key, item in cell.items())
            return ", ".join(f"{as_text(key)}: {text}" for key, text in texts if text)
    return as_text(cell)


def _number(value: int | float | Decimal) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    try:
        return str(value)
    except ValueError:  # Python prints no integers of thousands of digits
        return hex(int(value))


def _bytes_text(value: bytes) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text.strip()


def _listed(items: Sequence[object], levels: bool) -> str:
    if items and all(isinstance(item, dict) and _VALUE in item and item.keys() <= _LANGUAGE_KEYS for item in items):
        items = _in_one_language([item for item in items if isinstance(item, dict)])
    texts = [text for text in (_text(item, levels) for item in items) if text]
    if levels and not any(isinstance(item, list) for item in items):
        return " > ".join(texts)
    joined = [text + (" " if text.endswith(_SENTENCE_ENDS) else ", ") for text in texts[:-1]]
    return "".join((*joined, *texts[-1:]))


def _in_one_language(items: Sequence[dict[str, object]]) -> list[object]:
    tags = [str(item.get(_LANGUAGE) or "") for item in items]
    english = (tag for tag in tags if tag.lower().split("_")[0].split("-")[0] == "en")
    chosen = next(english, tags[0])
    return [item[_VALUE] for item, tag in zip(items, tags, strict=True) if tag == chosen]
