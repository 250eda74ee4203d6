"""Rows of XML product feeds: RSS, Atom, Google Merchant Center, and plain lists such as ``<products><product>…``.

A feed is read as a stream, one item in memory at a time. Document types, entities and external references are refused:
a few bytes of them may expand to gigabytes, or have files of this machine read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from caslie_ray.dataset._byte_streams import ByteStream
from caslie_ray.dataset._json_scan import too_many_values
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._shapes import Damage, Found

__all__ = ["feed_format", "read_feed"]

_ITEMS = frozenset({"item", "entry", "product", "offer"})
_ITEM_TAG = re.compile(rb"<(?:[\w.-]+:)?(?:item|entry|product|offer)[\s/>]", re.IGNORECASE)
_DOCTYPE = re.compile(rb"<!DOCTYPE\s+([\w:.-]+)", re.IGNORECASE)
_NO_FEEDS = frozenset({"html", "body", "div", "table", "svg"})
_ADDRESSES = ("href", "url", "src")  # attributes that stand for the text of an element without any
_OWN_TEXT = "text"
_HEAD = 256 << 10
_PIECE = 64 << 10
_DEEPEST = 10_000  # levels of elements: the parser needs memory for each
_BLANK = b" \t\r\n"
# An element's text in pieces, and its children by tag, in order.
_Parts = list["str | tuple[str, object]"]


class _TooMuch(Exception):
    """The feed is over a limit, and no more of it is read; the message is the reason."""


class _Survey:
    """Finds which elements are items. It is the target of a parser, which calls its methods.

    Attributes:
        root: the name of the outermost element.
        named: whether there are items of the usual names.
    """

    def __init__(self) -> None:
        self.root = ""
        self.named = False
        self._open: list[str] = []
        self._rows: Counter[str] = Counter()
        self._with_children: set[str] = set()

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Enter an element."""
        self._open.append(_local(tag))
        self.root = self._open[0]
        self.named = self.named or (len(self._open) > 1 and self._open[-1].lower() in _ITEMS)
        if len(self._open) == 2:
            self._rows[self._open[1]] += 1
        elif len(self._open) == 3:
            self._with_children.add(self._open[1])

    def end(self, tag: str) -> None:
        """Leave an element."""
        self._open.pop()

    @property
    def repeated(self) -> str | None:
        """The child of the root that occurs most often, and more than once, with children of its own."""
        found = [name for name, count in self._rows.most_common() if count > 1 and name in self._with_children]
        return found[0] if found else None


class _Items:
    """Collects the rows of a feed. It is the target of a parser, which calls its methods.

    Args:
        limits: the limits on an item.
        repeated: the name of the root's children that are items; None if items have one of the usual names.

    Attributes:
        moved: whether a method was called since it was last set to False.
    """

    def __init__(self, limits: Limits, repeated: str | None) -> None:
        self._limits = limits
        self._repeated = repeated
        self._names: set[str] = set()
        self._names_size = 0
        self._depth = 0
        self._level = 0  # of the item; 0 outside of one
        self._open: list[tuple[str, str, _Parts]] = []  # elements of the item: tag, address, content
        self._size = self._count = 0
        self._damage: Damage | None = None
        self._found: list[object] = []
        self.moved = False

    def taken(self) -> list[object]:
        """Return the rows, or `Damage`, of the items that ended since the last call."""
        found, self._found = self._found, []
        return found

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Enter an element."""
        self.moved = True
        self._depth += 1
        self._know(tag, *attributes)
        if self._depth > _DEEPEST:
            raise _TooMuch(f"too deep: elements are nested in more than {_DEEPEST:,} levels; write a flat feed")
        if not self._level and self._is_item(_local(tag)):
            self._level, self._size, self._count, self._damage = self._depth, 0, 0, None
        if not self._level or self._damage is not None:
            return
        address = next((attributes[name] for name in _ADDRESSES if name in attributes), "")
        self._open.append((tag, address, []))
        self._count += 1
        self._grow(len(address))
        if self._count > self._limits.row_values:
            self._lose(too_many_values(self._limits))
        elif self._depth - self._level > self._limits.nesting:
            reason = f"item nested too deeply: more than {self._limits.nesting} levels; flatten it"
            self._lose(Damage(f"{reason}, or raise ingest.max_nesting", limited=True))

    def start_ns(self, prefix: str, uri: str) -> None:
        """Enter the scope of a namespace."""
        self._know(f"{prefix} {uri}")

    def _know(self, *names: str) -> None:
        # The parser keeps every name until the end of the file.
        new = set(names) - self._names
        self._names |= new
        self._names_size += sum(map(len, new))
        if len(self._names) > self._limits.columns or self._names_size > self._limits.row_bytes:
            raise _TooMuch(
                f"too many names: more than {self._limits.columns:,} names of elements and attributes, or very long"
                " ones; put what varies into their text, or raise ingest.max_columns"
            )

    def _is_item(self, name: str) -> bool:
        if self._repeated is not None:
            return self._depth == 2 and name == self._repeated
        return self._depth > 1 and name.lower() in _ITEMS

    def data(self, text: str) -> None:
        """Take a piece of text."""
        self.moved = True
        if self._level and self._damage is None:
            self._open[-1][2].append(text)
            self._grow(len(text))

    def comment(self, text: str) -> None:
        """Pass a comment."""
        self.moved = True

    def _grow(self, characters: int) -> None:
        self._size += characters
        if self._size > self._limits.row_bytes:
            self._lose(_too_long(self._limits))

    def _lose(self, damage: Damage) -> None:
        self._damage = self._damage or damage
        self._open.clear()

    def end(self, tag: str) -> None:
        """Leave an element."""
        self.moved = True
        self._depth -= 1
        if not self._level:
            return
        ended = self._depth < self._level
        if ended:
            self._level = 0
        if self._damage is None:
            name, address, parts = self._open.pop()
            if ended:
                self._found.append(_row(parts))
            else:
                self._open[-1][2].append((name, _value(parts, address)))
        elif ended:
            self._found.append(self._damage)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _too_long(limits: Limits) -> Damage:
    reason = f"item too long: more than {limits.row_bytes:,} characters; close its tags"
    return Damage(f"{reason}. For an item of this size raise ingest.max_row_bytes", limited=True)


def _row(parts: _Parts) -> dict[str, object]:
    row = _members(parts)
    text = _own_text(parts)
    return row | {_OWN_TEXT: text} if text and _OWN_TEXT not in row else row


def _value(parts: _Parts, address: str) -> object:
    """Return the text of an element, its address, or its children; where markup is inside of text, all text."""
    text = _own_text(parts)
    if all(isinstance(part, str) for part in parts):
        return text or address
    return _flat(parts) if text else _members(parts)


def _own_text(parts: _Parts) -> str:
    return "".join(part for part in parts if isinstance(part, str)).strip()


def _members(parts: _Parts) -> dict[str, object]:
    """Return the children by their local names; those that repeat are lists."""
    members: dict[str, object] = {}
    tags: dict[str, str] = {}
    for part in parts:
        if isinstance(part, str):
            continue
        tag, value = part
        name = _local(tag)
        known = members.get(name)
        if name not in members:
            members[name], tags[name] = value, tag
        elif isinstance(known, list):
            known.append(value)
        elif tag == tags[name] or value != known:  # <title> and <g:title> are often the same
            members[name] = [known, value]
    return members


def _flat(parts: _Parts) -> str:
    """Return all text of an element, in order."""
    pieces: list[str] = []
    after_child = False
    for part in parts:
        piece = part if isinstance(part, str) else " ".join(_texts(part[1]))
        child = not isinstance(part, str)
        joined = bool(pieces) and pieces[-1][-1:].isalnum() and piece[:1].isalnum()
        pieces += [" ", piece] if joined and (child or after_child) else [piece]
        after_child = child
    return " ".join("".join(pieces).split())


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _surveyed(head: bytes) -> _Survey:
    survey = _Survey()
    with suppress(ParseError, ValueError, LookupError, _TooMuch):  # reading the items reports it
        DefusedXMLParser(target=survey, forbid_dtd=True).feed(head.lstrip(_BLANK))
    return survey


def feed_format(head: bytes) -> bool:
    """Whether a file is an XML feed, by its start; web pages and drawings are none."""
    survey = _surveyed(head)
    doctype = _DOCTYPE.search(head)
    if not survey.root and doctype:  # no feed that is read, but one that is refused with its reason
        return doctype[1].decode("latin-1").lower() not in _NO_FEEDS and _ITEM_TAG.search(head) is not None
    return survey.root.lower() not in _NO_FEEDS and (survey.named or survey.repeated is not None)


class _Source:
    """Reads a stream; one that fails ends there, and `broken` has the reason."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.broken: str | None = None

    def read(self, size: int) -> bytes:
        """Return up to so many bytes; none at the end."""
        try:
            return self._stream.read(size)
        except (OSError, EOFError, ValueError) as error:
            self.broken = str(error).split("\n")[0][:200] or type(error).__name__
            return b""


def read_feed(stream: ByteStream, limits: Limits) -> Iterator[Found]:
    """Yield the items of a feed, numbered from 1, as mappings of the local names of their children.

    A child is its text; without text, its address (`href`, `url` or `src`); with children of its own, a mapping; with
    text and children, all text in it. Children of the same name are a list. Other attributes are left out. Where the
    feed is malformed, refused or cut, the items before that are yielded, and one `Damage`.
    """
    source = _Source(stream)
    head = b""
    while len(head) < _HEAD and (piece := source.read(_HEAD - len(head))):
        head += piece
    data = head.lstrip(_BLANK)
    line = head[: len(head) - len(data)].count(b"\n")
    survey = _surveyed(data)
    items = _Items(limits, None if survey.named else survey.repeated)
    parser = DefusedXMLParser(target=items, forbid_dtd=True)
    number = stuck = 0
    damage: Damage | None = None
    while damage is None:
        items.moved = False
        try:
            if data:
                parser.feed(data)
            elif not source.broken:
                parser.close()
        except _TooMuch as error:
            damage = Damage(str(error), limited=True)
        except DefusedXmlException:
            reason = "refused XML: it has a document type or entities, which may expand to any size"
            damage = Damage(f"{reason}; remove <!DOCTYPE …> and <!ENTITY …> from the feed")
        except ParseError as error:
            damage = _malformed(error, line) if data else _cut()
        except (ValueError, LookupError) as error:
            damage = Damage(f"unreadable encoding: {error}; write the feed again in UTF-8")
        for value in items.taken():
            number += 1
            yield Found(number, value)
        if not data:
            break
        # The parser keeps the start of a tag until its end, and looks at all of it each time.
        stuck = 0 if items.moved else stuck + len(data)
        if stuck > limits.row_bytes:
            damage = damage or _too_long(limits)
        data = source.read(max(_PIECE, stuck))
    if source.broken:
        damage = damage or Damage(f"broken file: it ends early: {source.broken}; copy it again")
    if damage is not None:
        yield Found(number + 1, damage)


def _malformed(error: ParseError, skipped: int) -> Damage:
    what = str(error).partition(": line")[0]
    place = f"{what} in line {error.position[0] + skipped}"
    return Damage(
        f"malformed XML: {place}; the items before it are kept. Correct that line, or the encoding that the first line"
        " names, and give the feed again"
    )


def _cut() -> Damage:
    return Damage("truncated file: it ends inside of an element; the items before it are kept, copy it again")
