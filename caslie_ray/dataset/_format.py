"""The format of a source file, detected from its first bytes."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice, takewhile

from caslie_ray.dataset._byte_streams import ByteStream
from caslie_ray.dataset._delimited import BLANK, trimmed
from caslie_ray.dataset._delimited_records import Dialect, Record, Records
from caslie_ray.dataset._json_scan import excess
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._text_stream import TextStream, encoding_of
from caslie_ray.imaging.file_types import looks_like

__all__ = ["delimited_format", "json_format", "no_rows", "read_head"]

_HEAD = 256 * 1024
_FIRST_LINE = 16 << 20  # bytes in which the end of the first line is looked for
_BEFORE_ROWS = codecs.BOM_UTF8 + b" \t\r\n"

_DELIMITERS = "\t;|,"  # the rarer in text, the earlier
_TABLE_NAME = re.compile(r"\.(csv|tsv|tab)(\.gz)?$", re.IGNORECASE)
_ANNOUNCED = re.compile(rf'"?sep=([{_DELIMITERS}])"?$', re.IGNORECASE)
_OTHER = re.compile(r"[<{\[]|%PDF|PAR1|version https://git-lfs")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_NUMBER = re.compile(r"[+-]?[\d.,]+ ?%?$")
_ADDRESS = re.compile(r"https?://|.*\.(jpe?g|png|webp|gif)$", re.IGNORECASE)
_SENTENCE_END = (".", "!", "?", ":")
_NAME_CHARACTERS, _NAME_WORDS = 60, 8
_SAMPLE = 50  # records from which a delimiter is recognised
_BINARY = 0.05  # of the characters are control characters
_CONSISTENT = 0.9  # of the records have as many cells as the header


def read_head(stream: ByteStream, named_lines: bool) -> bytes:
    """Return the start of a file; in a file that is named as JSON Lines, past the end of its first line."""
    pieces: list[bytes] = []
    length = 0
    line_ended = not named_lines
    with suppress(OSError):  # reading the rows reports it
        while (length < _HEAD or (not line_ended and length < _FIRST_LINE)) and (piece := stream.read(_HEAD)):
            line_ended = line_ended or b"\n" in (piece if length else piece.lstrip(_BEFORE_ROWS))
            pieces.append(piece)
            length += len(piece)
    head = b"".join(pieces)
    return head if line_ended else head[:_HEAD]


def json_format(head: bytes, encoding: str | None, named_lines: bool, limits: Limits) -> str | None:
    """Return ``"lines"`` for JSON Lines, ``"values"`` for other JSON; None if there is no JSON."""
    text = head.decode(encoding_of(head, encoding), errors="replace").lstrip("\ufeff \t\r\n")
    if text.startswith("["):
        return "values"
    if len(head) > 2 * _HEAD and excess(text, 0, len(text), limits) is not None:
        return "lines"  # of a head of this length the first line is all; it is too much to be parsed
    first, _, rest = text.partition("\n")
    if text.startswith("{"):
        # A single line may be a row, or have all rows below a key.
        if not rest.strip() and (not named_lines or len(head) >= _HEAD):
            return "values"
        if _is_object(first) or (named_lines and not _goes_on(text, len(first))):
            return "lines"
        return "lines" if not _goes_on(text, len(first)) and _has_whole_line(text) else "values"
    return "lines" if _has_whole_line(text) else None


def _goes_on(text: str, line: int) -> bool:
    """Whether the value at the start of a text continues after the first line, as far as the text shows."""
    try:
        return json.JSONDecoder().raw_decode(text)[1] > line
    except json.JSONDecodeError as error:
        return error.pos > line
    except (ValueError, RecursionError):
        return False


def _has_whole_line(text: str) -> bool:
    return any(map(_is_object, text.split("\n")[:200]))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line.strip("\ufeff \t\r")), dict)
    except (ValueError, RecursionError):
        return False


def delimited_format(head: bytes, encoding: str | None, name: str) -> Dialect | None:
    """Return how a table is written; None if there is none with a header, or another format.

    Args:
        head: the start of the file.
        encoding: the encoding that the user set.
        name: the name of the file. One that ends in ``.csv``, ``.tsv`` or ``.tab`` may have a single column, no rows,
            and rows that do not fit its header. Any other must have rows that do, since prose has commas too.
    """
    line_break = "\n" if b"\n" in head or b"\r" not in head else "\r"
    sample = [record.text for record in _sample(head, encoding, Dialect(",", line_break))]
    first = sample[0].strip(" \r\n\ufeff") if sample else ""
    text = "".join(sample)
    if not first or _OTHER.match(first) or len(_CONTROL.findall(text)) > _BINARY * len(text):
        return None
    if announced := _ANNOUNCED.match(first):
        return Dialect(announced[1], line_break, announced=True)
    named = bool(_TABLE_NAME.search(name))
    found: list[tuple[bool, int, Dialect]] = []
    for delimiter in _DELIMITERS:
        dialect = Dialect(delimiter, line_break)
        header, *rows = _cells(head, encoding, dialect) or [[]]
        fit = [len(trimmed(row)) <= len(header) <= len(row) for row in rows]
        consistent = sum(fit) >= max(1, _CONSISTENT * len(fit))
        prose = first.count(delimiter) == first.count(f"{delimiter} ")
        if len(header) > 1 and _is_header(header, strict=not named) and (named or (consistent and not prose)):
            found.append((consistent, len(header), dialect))
    if found:
        return max(found, key=lambda one: one[:2])[2]
    single = named and not any(delimiter in first for delimiter in _DELIMITERS) and _is_header([first], strict=True)
    return Dialect(",", line_break) if single else None


def _sample(head: bytes, encoding: str | None, dialect: Dialect) -> Iterator[Record]:
    text = TextStream(io.BytesIO(head), encoding_of(head, encoding))
    # The last quote may be unclosed because the head is cut.
    found = takewhile(lambda one: not one.is_unclosed, Records(text, dialect, len(head)))
    return islice(found, _SAMPLE)


def _cells(head: bytes, encoding: str | None, dialect: Dialect) -> list[list[str]]:
    """Return the cells of the first records, those of the header up to its last name."""
    found: list[list[str]] = []
    for record in _sample(head, encoding, dialect):
        with suppress(csv.Error):
            cells = record.cells(dialect.delimiter)
            if names := trimmed(cells):
                found.append(cells if found else names)
    # The last record may be cut.
    return found[:-1] if 2 < len(found) < _SAMPLE else found


def _is_header(cells: Sequence[str], *, strict: bool) -> bool:
    """Whether cells are names of columns; where `strict`, none may look like a sentence or code."""
    names = [name for cell in cells if (name := cell.strip(BLANK))]
    if 2 * len(names) < len(cells) or 2 * len(set(names)) < len(names):
        return False
    if any(_CONTROL.search(name) or _ADDRESS.match(name) for name in names):
        return False
    if 2 * sum(bool(_NUMBER.match(name)) for name in names) > len(names):
        return False
    return not strict or all(
        len(name) <= _NAME_CHARACTERS
        and len(name.split()) <= _NAME_WORDS
        and not name.endswith(_SENTENCE_END)
        and name.count("(") == name.count(")")
        for name in names
    )


def no_rows(head: bytes) -> str:
    """Return why a file has no rows."""
    if not head.strip():
        return "empty file: it has no rows"
    formats = (
        "CSV or TSV with a header line, a JSON array, JSON Lines, Parquet, an XML product feed, or a WebDataset tar"
    )
    return f"not a data set: it looks like {looks_like(head)}; give {formats}"
