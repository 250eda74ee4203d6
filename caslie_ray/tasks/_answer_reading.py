"""Maps a model's free text to one of the options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["label_of", "option_titles", "read_answer", "strip_mark", "strip_ordinal"]

_ORDINAL = re.compile(r"^\s*\d+\s*(?:st|nd|rd|th)\s*:\s*", re.IGNORECASE)
_LETTER = re.compile(r"^\s*\(?([A-Z])(?:\)|\)?\s*:)(?:\s+|$)")
_ANSWERED_LETTER = re.compile(r"^\W*\(?([A-Za-z])\)?\**\s*(?:$|[:.),\];])")
_LONE_LETTERS = re.compile(r"\W*[A-Za-z](?:\W+[A-Za-z])+\W*")


def strip_mark(text: str) -> str:
    """Remove the ``1st:`` of a history item or the ``A:`` of an option, so that equal products are equal texts."""
    mark = _ORDINAL.match(text) or _LETTER.match(text)
    return text[mark.end() if mark else 0 :].strip()


def strip_ordinal(text: str) -> str:
    """Remove only the ``1st:`` of a history item: in `X: The Game` the letter is part of the title."""
    return _ORDINAL.sub("", text, count=1).strip()


def option_titles(options: Sequence[str]) -> list[str]:
    """Return the options without their letters, if all are lettered in order (A, B, …)."""
    marks = [_LETTER.match(option) for option in options]
    lettered = all(mark and mark[1] == chr(ord("A") + at) for at, mark in enumerate(marks))
    return [strip_mark(option) if lettered else option.strip() for option in options]


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[\"“”'‘’`*.]", " ", text.casefold()).split())


def _phrase(words: str, text: str) -> re.Match[str] | None:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) if words else None


def _found(answer: str, phrases: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the keys with a phrase in `answer`; longer phrases match first, and matches do not overlap."""
    ranked = sorted(((_plain(p), key) for key, ps in phrases.items() for p in ps), key=lambda x: -len(x[0]))
    hits: list[str] = []
    rest = answer
    for phrase, key in ranked:
        match = _phrase(phrase, rest)
        while match:
            if key not in hits:
                hits.append(key)
            rest = rest[: match.start()] + "\x00" + rest[match.end() :]
            match = _phrase(phrase, rest)
    return hits


def label_of(option: str, cues: Mapping[str, Sequence[str]]) -> str | None:
    """Return the label that an option's wording means, or None if it matches none or several.

    Args:
        option: the option as in the data, with or without its letter.
        cues: for each label, the phrases that identify it.
    """
    hits = _found(_plain(strip_mark(option)), cues)
    return hits[0] if len(hits) == 1 else None


def read_answer(text: str, options: Sequence[str], cues: Mapping[str, Sequence[str]]) -> str | None:
    """Return the option that `text` chooses, or None if it is unclear.

    Tried in order: the exact option; a letter alone or before a delimiter (`also buy` is not the letter a); the words
    of exactly one option or label.
    """
    answer = _plain(text)
    if not answer:
        return None
    for option in options:
        if answer in (_plain(option), _plain(strip_mark(option))):
            return option
    letters = {match[1].upper(): option for option in options if (match := _LETTER.match(option))}
    if letters and _LONE_LETTERS.fullmatch(text) and len(set(re.findall("[A-Z]", text.upper()))) > 1:
        return None
    match = _ANSWERED_LETTER.match(text)
    if match and match[1].upper() in letters:
        return letters[match[1].upper()]
    first, *rest = [word.strip(",:;!") for word in answer.split(maxsplit=2)]
    by_text = {_plain(strip_mark(option)): option for option in options}
    if by_text.keys() == {"yes", "no"} and first in by_text and rest[:1] != ["or"]:
        return by_text[first]
    named = _found(answer, {option: [strip_mark(option)] for option in options})
    if len(named) == 1:
        return named[0]
    if named:
        return None
    spelled = {label: option for option in reversed(options) if (label := label_of(option, cues))}
    hits = [spelled[label] for label in _found(answer, cues) if label in spelled]
    return hits[0] if len(hits) == 1 else None
