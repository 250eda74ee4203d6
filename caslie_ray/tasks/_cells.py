"""Decodes structured text cells: JSON, nested JSON strings, Python literals, and arrays printed by numpy."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Sequence
from itertools import pairwise

from caslie_ray.tasks._errors import RowError

__all__ = ["OBJECT", "STRUCTURE", "decoded", "structured"]

_LAYERS = 4
_LITERAL_CHARACTERS = 1 << 18
_LITERAL_DEPTH = 50
_JSON = ("{", "[", '"')
_LITERAL = re.compile(r"""[\[{(]|[bBuUrR]{0,2}['"]""")
_QUOTED = r"""[bBuU]?(?:'[^'\n]{0,100}'|"[^"\n]{0,100}")"""

OBJECT = re.compile(rf"\{{\s*{_QUOTED}\s*:")
"""The start of a text that was meant as an object: a brace, a quoted key and a colon."""

STRUCTURE = re.compile(r"""[\[{]\s*[bBuU]?['"{\[]""")
"""The start of a text that was meant as a list or an object."""

# `[None, 'a mug']` is a list.
_QUOTED_ITEM = re.compile(r"""\[[^'"]*,\s*[bBuU]?['"]""")

_NAMES = {"None": None, "nan": None, "NaN": None, "null": None, "True": True, "true": True, "False": False,
          "false": False}  # fmt: skip


class _NotALiteral(Exception):
    pass


def decoded(value: object, text: bool = False) -> object:
    """Return the value in a text cell, or the cell itself if it is plain text.

    JSON is decoded through up to 4 layers. A Python literal (``str()`` of a list or dict) is decoded if it is a list,
    tuple, set or dict; a literal string only if it contains one of these. Bytes are decoded if they are JSON.

    Args:
        value: the cell.
        text: whether the cell is more likely a text than a list. If so, tuples, sets and literals without a quoted
            text, such as ``(5, 4)``, are plain text.

    Raises:
        RowError: the cell has more layers of JSON.
    """
    value = _as_str(value)
    for _ in range(_LAYERS):
        if not isinstance(value, str):
            return value
        result = _decoded_once(value, text)
        if result is value:
            return value
        value = result
    if isinstance(value, str) and _decoded_once(value, text) is not value:
        raise RowError(f"a cell is JSON in more than {_LAYERS} layers: decode it before it is written")
    return value


def structured(value: object, column: str, start: re.Pattern[str] = STRUCTURE) -> object:
    """Return `decoded(value)`; with a `start` other than `STRUCTURE`, the cell is more likely a text.

    Args:
        value: a cell with a structure or plain text.
        column: its name, for messages.
        start: matches the start of text that cannot be plain text.

    Raises:
        RowError: the text starts like a structure and cannot be decoded.
    """
    result = decoded(value, text=start is not STRUCTURE)
    if isinstance(result, str) and start.match(result.lstrip()):
        raise RowError(
            f"{column} cannot be decoded: the text starts like JSON or a Python literal ({result.strip()[:60]!r}) and"
            " is neither; write valid JSON, as json.dumps does"
        )
    return result


def _as_str(value: object) -> object:
    if isinstance(value, (bytes, bytearray)) and value[:1] in (b"{", b"[", b'"'):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    return value


def _decoded_once(cell: str, plain: bool = False) -> object:
    """Decode one layer, or return `cell` itself if it is plain text."""
    text = cell.strip()
    if text.startswith(_JSON):
        try:
            result: object = json.loads(text)
        except (ValueError, RecursionError):
            pass
        else:
            return result
    if not _LITERAL.match(text) or len(text) > _LITERAL_CHARACTERS or _depth(text) > _LITERAL_DEPTH:
        return cell
    try:
        result = _literal(text)
    except _NotALiteral:
        return cell
    if isinstance(result, (list, dict)):
        return cell if plain and not (STRUCTURE.match(text) or _QUOTED_ITEM.match(text)) else result
    # A quoted text stays a text, unless it contains a structure.
    if isinstance(result, str) and result.strip().startswith(("{", "[")) and _decoded_once(result, plain) is not result:
        return result
    return cell


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in re.findall(r"[\[{(\])}]", text):
        depth += 1 if character in "[{(" else -1
        deepest = max(deepest, depth)
    return deepest


def _literal(text: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _NotALiteral from None
    printed = _printed_by_numpy(text)
    return printed if printed is not None else _value(tree.body)


def _printed_by_numpy(text: str) -> list[str] | None:
    """Return the items of ``['a' 'b']``, which Python would concatenate; None if commas separate all items.

    Raises:
        _NotALiteral: only some are separated.
    """
    try:
        tokens = [
            token
            for token in tokenize.generate_tokens(io.StringIO(text).readline)
            if token.type in (tokenize.STRING, tokenize.OP, tokenize.NAME, tokenize.NUMBER, tokenize.COMMENT)
        ]
    except (tokenize.TokenError, SyntaxError):
        raise _NotALiteral from None
    pairs = [(a, b) for a, b in pairwise(tokens) if a.type == b.type == tokenize.STRING]
    if not pairs:
        return None
    inside = tokens[1:-1]
    is_list = tokens[0].string == "[" and tokens[-1].string == "]"
    if not is_list or any(token.type != tokenize.STRING for token in inside) or any(a.end == b.start for a, b in pairs):
        raise _NotALiteral
    items = [ast.literal_eval(token.string) for token in inside]
    if not all(isinstance(item, str) for item in items):
        raise _NotALiteral
    return items


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=bytes() as data):
            return data.decode("utf-8", "replace")
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
            return _values(items)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            names = [_value(key) for key in keys if key is not None]
            if not all(isinstance(name, (str, int, float)) or name is None for name in names):
                raise _NotALiteral
            return dict(zip(map(str, names), _values(values), strict=True))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        # repr() of a numpy array, for example in str() of a dict
        case ast.Call(func=ast.Name(id="array") | ast.Attribute(attr="array"), args=[items]):
            return _value(items)
    raise _NotALiteral


def _values(nodes: Sequence[ast.expr]) -> list[object]:
    return [_value(node) for node in nodes]
