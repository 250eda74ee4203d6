"""Truncates prompts to a token budget: user fields lose words from their ends, then captions, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from caslie_ray.prompts import Prompt, Span

__all__ = ["Cut", "Fit", "PromptTooLong", "cut_prompt", "fit_of"]

Encode = Callable[[str], Sequence[int]]
_WORD = re.compile(r"\S+")
# What a field keeps before captions lose words: enough for a question or a product title.
_KEPT_WORDS = 32
_KEPT_CHARACTERS = 256


class PromptTooLong(ValueError):
    """The prompt does not fit even with all user fields and captions empty.

    Attributes:
        tokens: its length then; a lower bound for text that is too long to encode.
        budget: the maximum length.
    """

    def __init__(self, tokens: int, budget: int) -> None:
        super().__init__(f"the prompt is {tokens} tokens long with every user field and caption left out; {budget} fit")
        self.tokens = tokens
        self.budget = budget


class Cut(NamedTuple):
    """A prompt that fits.

    Attributes:
        text: the truncated prompt.
        ids: its token ids, at most the budget.
        cut: whether user fields lost words.
        captions_cut: whether captions lost words.
    """

    text: str
    ids: Sequence[int]
    cut: bool
    captions_cut: bool = False


class Fit(Enum):
    """What a prompt loses to fit."""

    WHOLE = "whole"
    """Nothing."""

    FIELDS_CUT = "fields cut"
    """Words of user fields only."""

    CAPTIONS_CUT = "captions cut"
    """Words of captions, and possibly of user fields."""

    TOO_LONG = "too long"
    """It does not fit even with every user field and caption empty."""


def cut_prompt(prompt: Prompt, budget: int, encode: Encode, longest_token: int) -> Cut:
    """Shorten a prompt to `budget` tokens.

    1. Words are dropped from the end of the longest field (in characters; the first if equal) until the prompt fits,
       then from the next longest field, and so on. If the first word alone is too long, it loses characters. If the
       prompt has captions, each field keeps its first 32 words or 256 characters.
    2. Captions lose words from their ends, the longest first: each keeps at most its first W words, for the largest W
       that fits (or characters of its first word, if no word fits). An empty caption keeps its label.
    3. Fields are shortened further, as in step 1, until empty.

    A prompt without captions only takes step 1. Text outside of fields and captions is not changed.

    Args:
        prompt: the prompt; its spans may not overlap.
        budget: maximum number of tokens.
        encode: returns the token ids of the prompt with this text, including the template.
        longest_token: characters of the tokenizer's longest token. Text of more than `budget` times as many characters
            cannot fit and is never encoded, which keeps a field of 10^6 characters cheap.

    Raises:
        PromptTooLong: it does not fit even with every field and caption empty.
    """
    draft = _Draft(prompt, budget, encode, longest_token)
    if (ids := draft.ids()) is None:
        ids = draft.shorten_fields(draft.floors)
    if ids is None and draft.captions:
        ids = draft.shorten_captions()
        if ids is None:
            ids = draft.shorten_fields(draft.starts)
    if ids is None:
        raise PromptTooLong(draft.tokens(), budget)
    return Cut(draft.text(), ids, draft.is_cut(draft.fields), draft.is_cut(draft.captions))


def fit_of(prompt: Prompt, budget: int, encode: Encode, longest_token: int) -> Fit:
    """Return what `cut_prompt` would cut, with at most four calls of `encode`."""
    draft = _Draft(prompt, budget, encode, longest_token)
    if draft.ids() is not None:
        return Fit.WHOLE
    draft.empty(draft.fields, draft.floors)
    if draft.ids() is not None:
        return Fit.FIELDS_CUT
    if draft.captions:
        draft.empty(draft.captions, draft.starts)
        if draft.ids() is not None:
            return Fit.CAPTIONS_CUT
        draft.empty(draft.fields, draft.starts)
        if draft.ids() is not None:
            return Fit.CAPTIONS_CUT
    return Fit.TOO_LONG


class _Draft:
    """A prompt while it is shortened.

    Attributes:
        fields: indices of the spans that are user fields.
        captions: indices of the spans that are captions.
        starts: start offset of each span.
        floors: offset up to which each field is kept before captions lose words; its start without captions.
    """

    def __init__(self, prompt: Prompt, budget: int, encode: Encode, longest_token: int) -> None:
        self._prompt = prompt
        self._budget = budget
        self._encode = encode
        self._limit = budget * longest_token
        captions = {(start, end) for start, end in prompt.captions if start < end}
        self._spans = sorted({*prompt.fields, *captions})
        self._kept = [end for _, end in self._spans]
        self.captions = [n for n, span in enumerate(self._spans) if span in captions]
        self.fields = [n for n, span in enumerate(self._spans) if span not in captions]
        self.starts = [start for start, _ in self._spans]
        self.floors = [_floor(prompt.text, span) for span in self._spans] if captions else self.starts

    def text(self) -> str:
        """Return the prompt with each span truncated."""
        parts: list[str] = []
        last = 0
        for (start, end), kept in zip(self._spans, self._kept, strict=True):
            parts += [self._prompt.text[last:start], self._prompt.text[start:kept]]
            last = end
        parts.append(self._prompt.text[last:])
        return "".join(parts)

    def ids(self) -> Sequence[int] | None:
        """Return the token ids of the current text; None if it does not fit."""
        text = self.text()
        if len(text) > self._limit:
            return None
        ids = self._encode(text)
        return ids if len(ids) <= self._budget else None

    def tokens(self) -> int:
        """Return the number of tokens of the current text; a lower bound for text that is too long to encode."""
        text = self.text()
        longest_token = self._limit // self._budget if self._budget else 0
        return -(-len(text) // longest_token) if len(text) > self._limit and longest_token else len(self._encode(text))

    def is_cut(self, numbers: Sequence[int]) -> bool:
        """Return whether any of these spans lost characters."""
        return any(self._kept[n] < self._spans[n][1] for n in numbers)

    def empty(self, numbers: Sequence[int], ends: Sequence[int]) -> None:
        """Cut these spans to the given ends."""
        for n in numbers:
            self._kept[n] = ends[n]

    def shorten_fields(self, ends: Sequence[int]) -> Sequence[int] | None:
        """Drop words of the fields, the longest first, down to the given ends; None if that is not enough."""
        for n in sorted(self.fields, key=lambda n: self.starts[n] - self._kept[n]):
            end, self._kept[n] = self._kept[n], ends[n]
            ids = self.ids()
            if ids is None:
                continue  # still too long: shorten the next field too
            return self._lengthen(n, end) or ids
        return None

    def shorten_captions(self) -> Sequence[int] | None:
        """Drop words of the captions, the longest first; None if it does not fit with all of them empty."""
        words = {
            n: [match.end() for match in _WORD.finditer(self._prompt.text, *self._spans[n])] for n in self.captions
        }

        def keep_words(count: int) -> None:
            for n, ends in words.items():
                self._kept[n] = self._spans[n][1] if count >= len(ends) else ends[count - 1]

        def keep_characters(count: int) -> None:
            for n, ends in words.items():
                self._kept[n] = min(self.starts[n] + count, ends[0] if ends else self.starts[n])

        most = max(map(len, words.values()))
        longest = max((ends[0] - self.starts[n] for n, ends in words.items() if ends), default=0)
        for counts, keep in ((range(1, most), keep_words), (range(1, longest), keep_characters)):
            if (ids := self._keep_most(counts, keep)) is not None:
                return ids
        self.empty(self.captions, self.starts)
        return self.ids()

    def _lengthen(self, n: int, end: int) -> Sequence[int] | None:
        """Restore the words of field `n` that fit, up to `end`; None if not even a character fits."""
        least = self._kept[n]

        def keep(end: int) -> None:
            self._kept[n] = end

        words = [match.end() for match in _WORD.finditer(self._prompt.text, least, end)]
        # only a first word loses characters
        first = range(least + 1, words[0]) if words and least == self.starts[n] else ()
        for ends in (words, first):
            if (ids := self._keep_most(ends, keep)) is not None:
                return ids
        keep(least)
        return None

    def _keep_most(self, ends: Sequence[int], keep: Callable[[int], None]) -> Sequence[int] | None:
        """Apply `keep` with the last of `ends` that fits; None if none of them does."""

        def fits(end: int) -> Sequence[int] | None:
            keep(end)
            return self.ids()

        found = _longest(ends, fits)
        if found is None:
            return None
        keep(found[0])
        return found[1]


def _floor(text: str, span: Span) -> int:
    """Return the end offset of the complete first words that a field keeps."""
    start, end = span
    head = min(end, start + _KEPT_CHARACTERS)
    words = [match.end() for match in _WORD.finditer(text, start, head)]
    if len(words) > _KEPT_WORDS:
        return words[_KEPT_WORDS - 1]
    broken = head < end and not text[head].isspace() and words and words[-1] == head
    if broken and len(words) > 1:
        return words[-2]
    return head


def _longest(ends: Sequence[int], fits: Callable[[int], Sequence[int] | None]) -> tuple[int, Sequence[int]] | None:
    """Return the last of `ends` that fits, and its ids, or None. Assumes that any shorter prefix fits (monotone).

    Exponential, then binary search, so that no candidate is much longer than what fits.
    """
    low, high = -1, 1
    best: Sequence[int] | None = None
    while high <= len(ends) and (found := fits(ends[high - 1])) is not None:
        low, best, high = high - 1, found, high * 2
    high = min(high - 1, len(ends))
    while high - low > 1:
        middle = (low + high) // 2
        found = fits(ends[middle])
        if found is None:
            high = middle
        else:
            low, best = middle, found
    return (ends[low], best) if best is not None else None
