"""Reads cells of a record liberally: JSON or plain text, scalars or lists, NaN or missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from caslie_ray.tasks._cells import decoded, structured
from caslie_ray.tasks._errors import RowError

__all__ = ["SPLITS", "RowError", "as_text", "decoded", "is_missing", "read_split", "structured", "text_list"]

SPLITS = ("train", "validation", "ind", "ood")
_DEPTH = 20
_SPELLINGS = {
    "train": "train", "training": "train", "trainset": "train",
    "validation": "validation", "val": "validation", "valid": "validation", "dev": "validation",
    "test": "ind", "ind": "ind", "indtest": "ind", "testind": "ind", "indomain": "ind", "indomaintest": "ind",
    "ood": "ood", "oodtest": "ood", "testood": "ood", "outofdomain": "ood", "outofdomaintest": "ood",
}  # fmt: skip


def is_missing(value: object) -> bool:
    """Return whether a cell is None, NaN, or an empty text or list."""
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, (list, tuple, dict)) and not value


def as_text(value: object, depth: int = 0) -> str:
    """Return a cell as plain text that can be stored as UTF-8; missing cells are empty.

    A product given as a mapping reads as its title, category and brand, in that order.

    Raises:
        RowError: lists or mappings are nested too deeply.
    """
    if depth > _DEPTH:
        raise RowError(f"a value is nested more than {_DEPTH} deep: give plain text")
    if is_missing(value):
        return ""
    if isinstance(value, str):
        # Lone surrogates are legal in JSON but not in UTF-8, and so not in Arrow.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
    if isinstance(value, Mapping):
        known = [as_text(value.get(key), depth + 1) for key in ("title", "category", "brand")]
        parts = [part for part in known if part] or [as_text(item, depth + 1) for item in value.values()]
        return ", ".join(part for part in parts if part)
    if isinstance(value, (bytes, bytearray)):  # a Parquet column of text that is not marked as text
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, Sequence):
        return " ".join(part for part in (as_text(item, depth + 1) for item in value) if part)
    return str(value)


def text_list(value: object) -> list[str]:
    """Return a list cell as texts: the values of a mapping, the lines of a plain text."""
    value = decoded(value)
    if is_missing(value):
        return []
    items: list[Any]
    if isinstance(value, str):
        items = [line for line in value.splitlines() if line.strip()]
    elif isinstance(value, Mapping):
        items = list(value.values())
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        items = list(value)
    else:
        items = [value]
    return [as_text(item) for item in items]


def read_split(value: object) -> str:
    """Return one of `SPLITS`.

    Raises:
        RowError: the split is missing or unknown.
    """
    text = as_text(value)
    key = re.sub(r"[^a-z]", "", text.lower())
    if key not in _SPELLINGS:
        shown = f"split {text[:80]!r} is unknown" if text else "split is missing"
        raise RowError(f"{shown}: use train, validation, test (in domain) or ood")
    return _SPELLINGS[key]
