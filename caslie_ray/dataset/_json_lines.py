"""JSON Lines: an object per line, where a damaged line costs only itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from caslie_ray.dataset._json_buffer import BLANK, DECODER, SPACE, parse_json, too_long
from caslie_ray.dataset._json_scan import excess
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._shapes import Damage, Found, Shapes
from caslie_ray.dataset._text_stream import TextStream, Undecodable

__all__ = ["read_lines"]


def read_lines(text: TextStream, shapes: Shapes, limits: Limits) -> Iterator[Found]:
    """Yield the rows, or `Damage`, of each line that is not blank, numbered by line."""
    number = 0
    tail: list[str] = []
    length = 0
    while piece := text.more():
        first, *rest = piece.split("\n")
        if length <= limits.row_bytes:
            tail.append(first)
        length += len(first)
        for line in rest:
            number += 1
            yield from _line(text, shapes, limits, number, tail, length)
            tail, length = [line], len(line)
    last = _line(text, shapes, limits, number + 1, tail, length)
    if text.broken:
        yield from (found for found in last if not isinstance(found.value, Damage))
        yield Found(number + 1, Damage(f"broken file: it ends early: {text.broken}; copy it again"))
    else:
        yield from last


def _line(
    text: TextStream, shapes: Shapes, limits: Limits, number: int, parts: list[str], length: int
) -> Iterator[Found]:
    if length > limits.row_bytes:
        yield Found(number, too_long(limits))
        return
    line = "".join(parts).strip(BLANK)
    if not line or line.isspace():
        return
    if (over := excess(line, 0, len(line), limits)) is not None:
        yield Found(number, over)
        return
    notes: tuple[str, ...] = ()
    if text.is_damaged(line):
        try:
            line, name = text.repaired(line)
        except Undecodable as error:
            yield Found(number, Damage(str(error)))
            return
        notes = (name,)
    for value in _values_of(line):
        for found in shapes.expand(value, notes=notes):
            yield found._replace(number=number)


def _values_of(line: str) -> list[object]:
    """Return the value of a line; several where lines lost the break between them."""
    value = parse_json(line)
    if not (isinstance(value, Damage) and "Extra data" in value.reason):
        return [value]
    values: list[object] = []
    at = 0
    while at < len(line):
        try:
            one, at = DECODER.raw_decode(line, at)
        except (ValueError, RecursionError):
            return [value]
        if not isinstance(one, Mapping):
            return [value]
        values.append(one)
        match = SPACE.match(line, at)
        at = match.end() if match else at
    return values
