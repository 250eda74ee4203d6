"""Names of columns, as formats and templates use them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

__all__ = ["column_name", "unique_names"]

_LENGTH = 200
_NAMESPACE = re.compile(r"\{[^}]*\}|g:")


def column_name(name: object) -> str:
    """Return a column's name as a slot of a template has it: `Body (HTML)` is `body_html`.

    It is lower-cased, and each run of characters other than letters and digits is one underscore. A byte order mark
    and the namespace of a product feed (`g:image_link`) are removed. A name of symbols only is empty.
    """
    return _column_name(str(name)[:_LENGTH])


def unique_names(columns: Iterable[object]) -> list[str]:
    """Return a different name for each column: a repeated name is numbered, and one without a name has its place."""
    used: set[str] = set()
    repeats: dict[str, int] = {}
    names = []
    for place, column in enumerate(columns, 1):
        base = column_name(column) or f"column_{place}"
        name = base
        while name in used:
            repeats[base] = repeats.get(base, 1) + 1
            name = f"{base}_{repeats[base]}"
        used.add(name)
        names.append(name)
    return names


@lru_cache(maxsize=4096)
def _column_name(name: str) -> str:
    name = name.strip("\ufeff \t\r\n")
    namespace = _NAMESPACE.match(name)
    if namespace is not None:
        name = name[namespace.end() :]
    return re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", name.lower())).strip("_")
