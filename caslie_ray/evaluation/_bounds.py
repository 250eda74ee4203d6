"""Bounds of what the report page shows: the length of each text, and the size of all of them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["LONGEST", "MOST_VIEWS", "bounded", "cut", "within_budget"]

LONGEST = 4000
"""Characters of a text that the page shows."""

MOST_VIEWS = 60
"""Views of one sample that the page shows."""

_SHORTER = (LONGEST, 1000, 250, 60)
_BUDGET = 24_000_000  # characters of JSON: a browser parses them in about a second
_NOTE = 40  # a text that was cut once is no longer than `LONGEST` and this


_NOTED = re.compile(r"… \(([\d,]+) characters\)")


def cut(text: str | None, longest: int = LONGEST) -> str | None:
    """Return a text; of one that is too long its first characters and its length in characters.

    A text that was cut before, here or by `bounded`, keeps the length that was noted then.
    """
    if text is None or len(text) <= longest + _NOTE:
        return text
    noted = _NOTED.fullmatch(text, LONGEST)
    return f"{text[:longest]}… ({noted[1] if noted else f'{len(text):,}'} characters)"


def bounded(table: pa.Table) -> pa.Table:
    """Return a table whose texts are cut, before any of them becomes a Python object."""
    for place, field in enumerate(table.schema):
        if not pa.types.is_string(field.type):
            continue
        column = table.column(place)
        lengths = pc.utf8_length(column)
        if (pc.max(lengths).as_py() or 0) > LONGEST + _NOTE:
            first = pc.utf8_slice_codeunits(column, 0, LONGEST)
            numbers = lengths.cast(pa.string())
            for _ in range(3):  # commas, as many as a 32-bit length needs
                numbers = pc.replace_substring_regex(numbers, r"^(\d+)(\d{3})(,|$)", r"\1,\2\3")
            short = pc.binary_join_element_wise(first, "… (", numbers, " characters)", "")
            column = pc.if_else(pc.greater(lengths, LONGEST + _NOTE), short, column)
            table = table.set_column(place, field, column)
    return table


def within_budget(written: Callable[[int], str]) -> str:
    """Return the longest result within the budget.

    Args:
        written: returns the result for a limit of characters of each text.
    """
    text = ""
    for longest in _SHORTER:
        text = written(longest)
        if len(text) <= _BUDGET:
            break
    return text
