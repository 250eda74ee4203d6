"""A moving window over JSON text, which reads one value at a time within the limits of a profile.

The standard library's decoder runs over the window. It accepts the NaN that Python and pandas write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from caslie_ray.dataset import _text_stream
from caslie_ray.dataset._json_scan import Scan, excess, too_nested
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._shapes import Damage
from caslie_ray.dataset._text_stream import TextStream

__all__ = ["BLANK", "DECODER", "SPACE", "Buffer", "Hopeless", "SkippedValue", "parse_json", "skip_to_row", "too_long"]

BLANK = " \t\r\n\ufeff"
# Concatenated files have byte order marks between values.
SPACE = re.compile(f"[{BLANK}]*")
_LITERAL = 16
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*$')
_KEY_LENGTH = 200
_CONTEXT = _KEY_LENGTH  # characters before the position that a buffer keeps
_LOOK_AHEAD = 8  # pieces of text in which an object is looked at before it is entered
_STEP = 16 << 10  # characters that are read at a time in a damaged file
_RECOVERY = 16 << 20  # characters that may be parsed without result, plus a share of the text
_RECOVERY_SHARE = 4
_ATTEMPT = 64  # characters that an attempt to parse counts as, at least
DECODER = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class SkippedValue(Damage):
    """A value that is over a limit; the buffer is after its end."""


class Hopeless(Exception):
    """The search for the next row takes too long."""


def parse_json(text: str) -> object:
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        return Damage(f"invalid JSON: {what} at character {error.pos + 1}; write this row again")
    except (ValueError, RecursionError) as error:
        return Damage(f"invalid JSON: {_odd(error)}")


def _odd(error: ValueError | RecursionError) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def too_long(limits: Limits) -> Damage:
    return Damage(
        f"row too long: more than {limits.row_bytes:,} characters; is this file JSON Lines or a JSON array?"
        " For a row of this size raise ingest.max_row_bytes",
        limited=True,
    )


class Buffer:
    """A moving window over a text, and the position in it.

    Attributes:
        data: the text in the window.
        at: the position in `data`.
        ended: whether the text has no more than `data`.
    """

    def __init__(self, text: TextStream, limits: Limits) -> None:
        self._text = text
        self._limits = limits
        self._dropped = 0
        self._ahead = ""  # text after the window that was read already, from `_next` on
        self._next = 0
        self._spent = 0
        self.data = ""
        self.at = 0
        self.ended = False

    @property
    def position(self) -> int:
        """Characters of the text that were read."""
        return self._dropped + self.at

    def grow(self, least: int = 1) -> bool:
        """Drop text before the position and append at least so many characters; False at the end of the text."""
        if self.ended:
            return False
        dropped = max(0, self.at - _CONTEXT)
        pieces = [self.data[dropped:]]
        appended = 0
        while appended < least and not self.ended:
            pieces.append(self._more())
            appended += len(pieces[-1])
            self.ended = not pieces[-1]
        self._dropped += dropped
        self.data = "".join(pieces)
        self.at -= dropped
        return appended > 0

    def _more(self) -> str:
        if self._next < len(self._ahead):
            piece = self._ahead[self._next : self._next + _STEP]
            self._next += len(piece)
            return piece
        self._ahead, self._next = "", 0
        piece = self._text.more()
        if self._spent and len(piece) > _STEP:
            self._ahead, self._next = piece, _STEP
            return piece[:_STEP]
        return piece

    def take_small_steps(self) -> None:
        """Keep a smaller window from here on: the JSON decoder takes time in proportion to an error's offset."""
        self._spent = max(self._spent, 1)
        if len(self.data) > 2 * _STEP and not self.ended:
            dropped = max(0, self.at - _CONTEXT)
            kept = self.at + _STEP
            self._ahead, self._next = self.data[kept:] + self._ahead[self._next :], 0
            self.data = self.data[dropped:kept]
            self._dropped += dropped
            self.at -= dropped

    def spend(self, characters: int) -> bool:
        """Count characters that were parsed without result; False once there are too many for the text."""
        self._spent += characters
        return self._spent < _RECOVERY + _RECOVERY_SHARE * self.position

    def stop(self) -> None:
        """Read no more of the text."""
        self.ended = True
        self.data, self.at = "", 0

    def peek(self) -> str:
        """Skip white space and return the next character; ``""`` at the end."""
        while True:
            match = SPACE.match(self.data, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.data):
                return self.data[self.at]
            if not self.grow():
                return ""

    def whole(self) -> tuple[object, int] | None:
        """Return the object that starts here and its end, if it is within a few pieces of the text."""
        while True:
            length = len(self.data) - self.at
            try:
                value, end = DECODER.raw_decode(self.data, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.data) - _LITERAL
                if not cut or length >= _LOOK_AHEAD * _text_stream.PIECE:
                    return None
            except (ValueError, RecursionError):
                return None
            else:
                return self._within_limits(value, end)
            if excess(self.data, self.at, len(self.data), self._limits) is not None or not self.grow(length):
                return None

    def value(self) -> tuple[object, int]:
        """Return the value that starts here and its end; or `Damage`, and where it was noticed."""
        limits = self._limits
        while True:
            try:
                value, end = DECODER.raw_decode(self.data, self.at)
                cut = end == len(self.data)
            except json.JSONDecodeError as error:
                end = error.pos
                cut = error.msg.startswith("Unterminated") or end >= len(self.data) - _LITERAL
                value = Damage(f"invalid JSON: {error.msg.removesuffix(' at')}; write this row again")
            except RecursionError:
                return self._skipped(too_nested(limits))
            except ValueError as error:  # a number with too many digits
                return self._skipped(Damage(f"invalid JSON: {_odd(error)}"))
            if not cut or self.ended:
                if not isinstance(value, Damage):
                    return self._within_limits(value, end)
                if cut:
                    value = Damage(
                        "truncated file: it ends inside this row; the rows before it are kept, copy it again"
                    )
                return value, end
            length = len(self.data) - self.at
            if length > limits.row_bytes:
                return self._skipped(too_long(limits))
            # All text in memory belongs to the value. Parsed, it may take many times its length.
            if (over := excess(self.data, self.at, len(self.data), limits)) is not None:
                return self._skipped(over)
            self.grow(min(length, limits.row_bytes + 1 - length) or 1)

    def _within_limits(self, value: object, end: int) -> tuple[object, int]:
        at, limits = self.at, self._limits
        # Most values are so small that the limits cannot be reached.
        opened = self.data.count("{", at, end) + self.data.count("[", at, end)
        if opened <= limits.nesting and end - at <= min(limits.row_values, limits.row_bytes):
            return value, end
        if end - at > limits.row_bytes:
            over: Damage | None = too_long(limits)
        else:
            over = excess(self.data, self.at, end, self._limits)
        return (value if over is None else SkippedValue(over.reason, over.limited)), end

    def _skipped(self, damage: Damage) -> tuple[object, int]:
        """Move past the value that starts here, without parsing it; to the end of the text where it has no end."""
        scan = Scan()
        block = _STEP
        while self.has_text():
            piece = self.data[self.at : self.at + block]
            end = scan.feed(piece)
            if end is not None:
                self.at += end
                return SkippedValue(damage.reason, damage.limited), self.at
            self.at += len(piece)
            block = min(2 * block, _text_stream.PIECE)
        return damage, self.at

    def has_text(self) -> bool:
        """Whether there is text at the position."""
        return self.at < len(self.data) or self.grow()


def skip_to_row(buffer: Buffer, noticed: int, is_row: Callable[[object], bool]) -> str | None:
    """Move to the next row after a damaged one, or to the end of the text where none follows.

    Returns:
        The key of the list that the row begins; None if it begins none.

    Raises:
        Hopeless: the search takes time out of proportion to the text.
    """
    # A row that lacks its closing brace is noticed inside the next one.
    buffer.at = min(max(noticed - 64, buffer.at + 1), len(buffer.data))
    buffer.take_small_steps()
    while True:
        start = buffer.data.find("{", buffer.at)
        if start < 0:
            buffer.at = len(buffer.data)
            if not buffer.grow():
                return None
            continue
        before = buffer.data[max(0, start - _KEY_LENGTH) : start]
        buffer.at = start
        value, end = buffer.value()
        if is_row(value):
            key = _KEY.search(before)
            return str(parse_json(f'"{key[1]}"')) if key else None
        if isinstance(value, SkippedValue):
            continue
        if not buffer.spend(max(_ATTEMPT, end - buffer.at)):
            raise Hopeless
        buffer.at += 1
