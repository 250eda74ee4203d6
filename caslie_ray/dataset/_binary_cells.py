"""Binary cells of a row, decoded as text."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from caslie_ray.dataset._columns import Columns

__all__ = ["decode_cells"]


def decode_cells(
    row: dict[str, object], source: Mapping[str, object], columns: Columns, encoding: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """Decode the binary cells of a row in place, except for images.

    An id that is no text is written in hexadecimal. A column of another name is left out where it is no text.

    Args:
        row: the row under the released names.
        source: the row under the column names of the source.
        columns: the names that columns may have.
        encoding: the encoding of binary text; UTF-8 where None.

    Returns:
        Why the row cannot be read, or None; and notes on columns that were left out.
    """
    notes: tuple[str, ...] = ()
    name = encoding or "utf-8"
    for column, cell in row.items():
        if column == "images":
            continue
        if column == "id" and isinstance(cell, bytes):
            row[column] = _id_text(cell, name)
            continue
        if column == "other_columns" and isinstance(cell, dict):
            row[column], left_out = _decodable(cell, name)
            notes = (*notes, *(f"undecodable column {key} left out" for key in left_out))
            continue
        try:
            row[column] = _as_text(cell, name)
        except UnicodeError as error:
            names = [key for key in source if columns.known(key) == column]
            own = next((key for key in names if source[key] is cell), names[0] if names else column)
            at = f" at byte {error.start + 1}" if isinstance(error, UnicodeDecodeError) else ""
            reason = (
                f"undecodable text: column {own} is binary and not {encoding or 'UTF-8'}{at};"
                " write it as text, or name its encoding with ingest.encoding"
            )
            return reason, notes
    return None, notes


def _id_text(cell: bytes, encoding: str) -> str:
    with suppress(UnicodeError):
        text = cell.decode(encoding)
        if text.isprintable():  # the bytes of a UUID may be valid text by chance
            return text
    return cell.hex()


def _decodable(cells: Mapping[str, object], encoding: str) -> tuple[dict[str, object], list[str]]:
    """Return the cells that can be decoded, and the names of the others."""
    found: dict[str, object] = {}
    left_out: list[str] = []
    for key, cell in cells.items():
        try:
            found[key] = _as_text(cell, encoding)
        except UnicodeError:
            left_out.append(key)
    return found, left_out


def _as_text(cell: object, encoding: str) -> object:
    if isinstance(cell, bytes):
        return cell.decode(encoding)
    if isinstance(cell, list):
        return [_as_text(one, encoding) for one in cell]
    if isinstance(cell, dict):
        return {_as_text(key, encoding): _as_text(one, encoding) for key, one in cell.items()}
    return cell
