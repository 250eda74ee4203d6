"""Finds turn marks of a chat template in user text, to prevent prompt injection."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

__all__ = ["Marks", "bracketed", "is_bracketed", "roles_before"]

_BRACKETED = re.compile(
    r"<\|[^<>|\n]{1,60}\|>|</?[A-Za-z_][\w ]{0,60}>|\[/?[A-Z_]{2,40}\]|<</?[A-Z]{2,20}>>|<｜[^<>\n]{1,60}｜>"
)
_ADDED = re.compile(r"[<\[].*[>\]]", re.DOTALL)
# Read at the end of the text before a turn: `USER:`, `### Human:`, `### Response`.
_ROLE = re.compile(r"(?:(?P<hashes>#+)\s*(?P<headed>[^\W\d_]\w*)|(?<!\w)(?P<plain>[^\W\d_]\w*)(?=:)):?\s*$")

# Characters that a preprocessor does not see, and that some tokenizers drop: control characters, and those that Unicode
# lists as Default_Ignorable_Code_Point.
_INVISIBLE = (
    r"\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_GAP = rf"[{_INVISIBLE}]*+"
_SPACE = rf"[\s{_INVISIBLE}]*+"
# Some invisible characters, such as Hangul fillers, are letters.
_WORD = rf"[^\W{_INVISIBLE}]"


def _lookalikes() -> dict[str, str]:
    """Return the full-width and small forms of each character that has any."""
    forms: defaultdict[str, str] = defaultdict(str)
    for code in range(0xFE50, 0xFFEF):
        plain = unicodedata.normalize("NFKC", chr(code))
        if len(plain) == 1 and plain != chr(code) and not plain.isspace():
            forms[plain] += chr(code)
            forms[chr(code)] += plain
    return forms


_LOOKALIKES = _lookalikes()


def bracketed(text: str) -> set[str]:
    """Return the bracketed marks in a text, such as ``<|user|>``, ``[/INST]`` and ``<<SYS>>``."""
    return set(_BRACKETED.findall(text))


def is_bracketed(token: str, *, added: bool = False) -> bool:
    """Return whether a token is a bracketed mark; an added token may have any text in its brackets."""
    return bool((_ADDED if added else _BRACKETED).fullmatch(token))


def roles_before(literals: Iterable[str]) -> set[tuple[bool, str]]:
    """Return the role words that a template writes before turns.

    Returns:
        For each, whether it follows hashes, and the word with its colon: ``(False, "USER:")``, and
        ``(True, "Human:")`` for ``### Human:``.
    """
    roles: set[tuple[bool, str]] = set()
    for literal in literals:
        if match := _ROLE.search(literal):
            colon = ":" if match[0].rstrip().endswith(":") else ""
            roles.add((match["hashes"] is not None, (match["headed"] or match["plain"]) + colon))
    return roles


class Marks:
    """Finds turn marks in user text, and imitations of them.

    - Bracketed marks match in any case.
    - Invisible characters inside a mark are skipped, full-width and small forms match the characters they resemble, and
      any white space matches a space. Look-alike letters of other alphabets do not match: they are other tokens.
    - Role words match in the template's case: after hashes anywhere, otherwise only as complete words with their colon.

    Args:
        tokens: special tokens, added tokens and bracketed marks.
        roles: role words from `roles_before`.
    """

    def __init__(self, tokens: Iterable[str], roles: Iterable[tuple[bool, str]] = ()) -> None:
        self._patterns = _token_patterns(tokens)
        headed = {word for hashes, word in roles if hashes}
        plain = {word for hashes, word in roles if not hashes}
        for word in sorted(headed):
            start = rf"#(?<!##)#*+{_SPACE}{_class(word[0])}"
            self._patterns.append(re.compile(rf"{start}(?={_spelled(word[1:])}{'' if word.endswith(':') else _END})"))
        for word in sorted(plain):
            first = _class(word[0])
            self._patterns.append(re.compile(rf"{first}(?<!{_WORD}{first})(?={_spelled(word[1:])})"))

    def breaks(self, text: str) -> list[int]:
        """Return the offsets, in ascending order, at which a space breaks up each mark in the text."""
        return sorted({match.end() for pattern in self._patterns for match in pattern.finditer(text)})


_END = rf"(?!{_WORD})"


def _token_patterns(tokens: Iterable[str]) -> list[re.Pattern[str]]:
    """Return patterns whose matches end where a token is broken up: after its first character.

    The rest of a token is a lookahead, so that overlapping tokens are found too.
    """
    by_first: defaultdict[str, set[str]] = defaultdict(set)
    for token in tokens:
        if len(token) > 1:
            by_first[token[0].lower()].add(token[1:].lower())
    # One pattern per first character: the search skips to it without trying the alternatives elsewhere.
    return [
        re.compile(f"{_class(first)}(?={_trie(sorted(rests))})", re.IGNORECASE)
        for first, rests in sorted(by_first.items())
    ]


def _trie(texts: Sequence[str]) -> str:
    """Return a pattern of texts as a trie, so that a search follows one path instead of trying all texts."""
    if "" in texts:
        return ""  # the shortest match is enough
    if len(texts) == 1:
        return _spelled(texts[0])
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for text in texts:
        groups[text[0]].append(text[1:])
    branches = [_spelled(first) + _trie(rests) for first, rests in groups.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _spelled(text: str) -> str:
    return "".join(_SPACE if char.isspace() else _GAP + _class(char) for char in text)


def _class(char: str) -> str:
    return f"[{re.escape(char + _LOOKALIKES.get(char, ''))}]"
