"""Plain text from the HTML of product descriptions."""

from __future__ import annotations

import html
import re

__all__ = ["MAX_CHARACTERS", "has_tags", "html_to_text"]

MAX_CHARACTERS = 2_000_000
"""A longer text is cut here before it is read."""

_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "br", "caption", "dd", "div", "dl", "dt", "fieldset", "figure"),
        *("figcaption", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p"),
        *("pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul"),
    )
)
_ITEMS = frozenset(("li", "td", "th"))
_DROPPED = {name: re.compile(rf"</{name}\b[^<>]*+>", re.IGNORECASE) for name in ("script", "style")}

# Linear, for any input: no attempt reads past the next `<`. That is why `html.parser` is not used, which takes minutes
# for 60 kB of unclosed tags in Python 3.11. A `<` in an attribute ends the tag.
_MARKUP = re.compile(
    r"""<!--
    |<(?P<name>/?[a-z][\w:-]*+)(?=[\s/>])(?:[^<>"']++|"[^"<]*+"|'[^'<]*+'|["'])*+>
    |<[!?][^<>]*+>""",
    re.IGNORECASE | re.VERBOSE,
)
_USUAL_TAG = re.compile(
    r"</?(?:a|b|br|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|section|span|strong|style|table|tbody|td|th|tr|u|ul)"
    r"(?=[\s/>])[^<>]*+>",
    re.IGNORECASE,
)
_LONG_NUMBER = re.compile(r"&#[0-9]{8,}+;?")
_INLINE, _SPACE, _ITEM, _LINE = range(4)


def has_tags(text: str) -> bool:
    """Whether a text has a tag that is usual in descriptions, such as `<p>` or `<br/>`."""
    return _USUAL_TAG.search(text) is not None


def html_to_text(text: str) -> str:
    """Return HTML as plain text; a text without tags stays as it is, with its entities decoded.

    Blocks are on lines of their own, items of lists and cells of tables are separated by semicolons. Scripts, style
    sheets and comments are dropped. It raises no error for broken HTML, and takes linear time.

    Args:
        text: HTML or plain text, of which at most `MAX_CHARACTERS` are read.
    """
    text = text[:MAX_CHARACTERS]
    found = _MARKUP.search(text)
    if found is None:
        return _unescaped(text)
    written = _Lines()
    at = 0
    comments = True
    while found is not None:
        written.add(text[at : found.start()])
        at = found.end()
        if found[0] == "<!--":
            end = text.find("-->", at) if comments else -1
            comments = end >= 0  # an unclosed one is searched for once
            at = end + 3 if comments else at
        elif found["name"]:
            name = found["name"].lower()
            written.separate(name.lstrip("/"))
            if name in _DROPPED:
                close = _DROPPED[name].search(text, at)
                at = close.end() if close is not None else len(text)
        found = _MARKUP.search(text, at)
    written.add(text[at:])
    return written.text()


class _Lines:
    """Joins pieces of text; of the separators between two pieces the strongest counts."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._separator = _INLINE

    def separate(self, tag: str) -> None:
        """Add the separator that a start or end tag implies."""
        kind = _LINE if tag in _BLOCKS else _ITEM if tag in _ITEMS else _INLINE
        self._separator = max(self._separator, kind)

    def add(self, piece: str) -> None:
        """Add text between two tags."""
        piece = _unescaped(piece)
        words = " ".join(piece.split())
        if piece[:1].isspace():
            self._separator = max(self._separator, _SPACE)
        if words:
            if self._parts:
                self._parts.append(self._between())
            self._parts.append(words)
            self._separator = _SPACE if piece[-1:].isspace() else _INLINE

    def _between(self) -> str:
        if self._separator == _ITEM:
            return " " if self._parts[-1][-1] in ".,:;!?" else "; "
        return ("", " ", "", "\n")[self._separator]

    def text(self) -> str:
        return "".join(self._parts)


def _unescaped(text: str) -> str:
    # Python refuses to read numbers of thousands of digits.
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text)) if "&" in text else text
