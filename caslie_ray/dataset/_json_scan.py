"""The structure of JSON text without its values: where a value ends, how deep and how large it is.

Time is linear in the text, memory in the size of a block.
"""

from __future__ import annotations

import re

import numpy as np

from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._shapes import Damage

__all__ = ["Scan", "excess", "too_many_values", "too_nested"]

_BLOCK = 1 << 20
# Possessive: a string without end must not be tried from each of its characters.
_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)
_SCALAR = re.compile(r"[^\s,\]}]*")


class Scan:
    """Follows the brackets of one JSON value outside strings.

    Attributes:
        depth: brackets that are open.
        deepest: the most that were open at a time.
        values: brackets opened, plus commas: about the number of values.
    """

    def __init__(self) -> None:
        self.depth = self.deepest = self.values = 0
        self._carry = ""  # start of a string that goes on in the next text

    def feed(self, text: str) -> int | None:
        """Scan more of the value; return the offset in `text` after its end, None if it goes on."""
        carried = len(self._carry)
        text = self._carry + text
        outside = _STRING.sub("", text)
        self._carry = ""
        opened = outside.find('"')
        if opened >= 0:
            outside = outside[:opened]
            slashes = len(text) - len(text.rstrip("\\"))
            self._carry = '"\\' if slashes % 2 else '"'
        codes = np.frombuffer(outside.encode("ascii", "replace"), np.uint8)
        opens = (codes == ord("{")) | (codes == ord("["))
        brackets = opens | (codes == ord("}")) | (codes == ord("]"))
        levels = self.depth + np.cumsum(np.where(opens[brackets], 1, -1))
        ends = np.flatnonzero(levels <= 0)
        if ends.size:
            levels = levels[: ends[0] + 1]
            codes = codes[: np.flatnonzero(brackets)[ends[0]] + 1]
            opens = opens[: codes.size]
        self.values += int(np.count_nonzero(opens) + np.count_nonzero(codes == ord(",")))
        if levels.size:
            self.deepest = max(self.deepest, int(levels.max()))
            self.depth = int(levels[-1])
        if ends.size:
            return _behind(text, levels.size) - carried
        if not self.depth and not self._carry and text:
            found = _STRING.match(text) or _SCALAR.match(text)
            end = found.end() if found else 0
            return end - carried if end < len(text) or text.endswith('"') else None
        return None


def _behind(text: str, brackets: int) -> int:
    """Return the offset after a bracket, given by its number among those outside strings, from 1."""
    for token in _TOKEN.finditer(text):
        if token[0][0] != '"':
            brackets -= 1
            if not brackets:
                return token.end()
    return len(text)


def excess(text: str, start: int, end: int, limits: Limits) -> Damage | None:
    """Return why a JSON value is nested too deeply or has too many values; None if it does not.

    Args:
        text: holds the value.
        start: where it begins.
        end: where it ends, or where its known part does.
        limits: the limits.
    """
    opened = text.count("{", start, end) + text.count("[", start, end)
    commas = text.count(",", start, end) if end - start > limits.row_values else 0
    if opened <= limits.nesting and opened + commas <= limits.row_values:
        return None
    scan = Scan()
    for at in range(start, end, _BLOCK):
        if scan.feed(text[at : min(at + _BLOCK, end)]) is not None:
            break
    if scan.deepest > limits.nesting:
        return too_nested(limits)
    return too_many_values(limits) if scan.values > limits.row_values else None


def too_nested(limits: Limits) -> Damage:
    """Return the reason of a row that is nested too deeply."""
    levels = f"more than {limits.nesting} levels"
    return Damage(f"invalid JSON: nested too deeply, {levels}; flatten it, or raise ingest.max_nesting", limited=True)


def too_many_values(limits: Limits) -> Damage:
    """Return the reason of a row with too many values."""
    reason = f"row too large: more than {limits.row_values:,} values; split it, or raise ingest.max_row_values"
    return Damage(reason, limited=True)
