"""Limits of what the report page shows: the length of each text, and the size of all texts together."""

from __future__ import annotations

import re
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["MAX_CHARACTERS", "MAX_VIEWS", "truncate", "truncate_columns", "within_budget"]

MAX_CHARACTERS = 4000
"""Characters of a text that the page shows."""

MAX_VIEWS = 60
"""Views per sample that the page shows."""

_SHORTER = (MAX_CHARACTERS, 1000, 250, 60)
_BUDGET = 24_000_000  # characters of JSON: a browser parses them in about a second
_NOTE = 40  # a truncated text is at most `MAX_CHARACTERS` and this long

_NOTED = re.compile(r"… \(([\d,]+) characters\)")


def truncate(text: str | None, longest: int = MAX_CHARACTERS) -> str | None:
    """Return a text; if it is too long, its first characters and its length.

    A text that was truncated before, here or by `truncate_columns`, keeps the length that was noted then.
    """
    if text is None or len(text) <= longest + _NOTE:
        return text
    noted = _NOTED.fullmatch(text, MAX_CHARACTERS)
    return f"{text[:longest]}… ({noted[1] if noted else f'{len(text):,}'} characters)"


def truncate_columns(table: pa.Table) -> pa.Table:
    """Return a table with truncated texts, without making Python objects of the long ones."""
    for place, field in enumerate(table.schema):
        if not pa.types.is_string(field.type):
            continue
        column = table.column(place)
        lengths = pc.utf8_length(column)
        if (pc.max(lengths).as_py() or 0) > MAX_CHARACTERS + _NOTE:
            first = pc.utf8_slice_codeunits(column, 0, MAX_CHARACTERS)
            numbers = lengths.cast(pa.string())
            for _ in range(3):  # thousands separators: a 32-bit length has up to three
                numbers = pc.replace_substring_regex(numbers, r"^(\d+)(\d{3})(,|$)", r"\1,\2\3")
            short = pc.binary_join_element_wise(first, "… (", numbers, " characters)", "")
            column = pc.if_else(pc.greater(lengths, MAX_CHARACTERS + _NOTE), short, column)
            table = table.set_column(place, field, column)
    return table


def within_budget(render: Callable[[int], str]) -> str:
    """Return the result for the largest text limit that fits the budget, or for the smallest limit.

    Args:
        render: returns the result for a limit of characters per text.
    """
    text = ""
    for longest in _SHORTER:
        text = render(longest)
        if len(text) <= _BUDGET:
            break
    return text
