"""The format of a source file, detected from its first bytes."""

from __future__ import annotations

import codecs
import json
from contextlib import suppress

from caslie_ray.dataset._byte_streams import ByteStream
from caslie_ray.dataset._json_scan import excess
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._text_stream import encoding_of
from caslie_ray.imaging.file_types import looks_like

__all__ = ["json_format", "no_rows", "read_head"]

_HEAD = 256 * 1024
_FIRST_LINE = 16 << 20  # bytes in which the end of the first line is looked for
_BEFORE_ROWS = codecs.BOM_UTF8 + b" \t\r\n"


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


def no_rows(head: bytes) -> str:
    if not head.strip():
        return "empty file: it has no rows"
    return f"not a data set: it looks like {looks_like(head)}; give a JSON array, JSON Lines or Parquet"
