"""Make a prompt fit: words go from the end of its longest user field, and nothing else goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from caslie_ray.prompts import Prompt

__all__ = ["Cut", "PromptTooLong", "cut_prompt"]

Encode = Callable[[str], Sequence[int]]
Fits = Callable[[str], Sequence[int] | None]
_WORD = re.compile(r"\S+")


class PromptTooLong(ValueError):
    """The prompt does not fit though all its user fields are empty.

    Attributes:
        tokens: how long it then is.
        budget: how long it may be.
    """

    def __init__(self, tokens: int, budget: int) -> None:
        super().__init__(f"the prompt is {tokens} tokens long with every user field left out; {budget} fit")
        self.tokens = tokens
        self.budget = budget


class Cut(NamedTuple):
    """A prompt that fits.

    Attributes:
        text: the prompt as it now is.
        ids: what `encode` made of it; its length is within the budget.
        cut: True where words were lost.
    """

    text: str
    ids: Sequence[int]
    cut: bool


def cut_prompt(prompt: Prompt, budget: int, encode: Encode, longest_token: int) -> Cut:
    """Shorten a prompt to `budget` tokens by the rule of the method.

    Words are dropped from the end of the longest field (in characters; the first of equals) until the prompt
    fits. Where nothing is left of that field, the next longest is shortened, and so on. Of a first word that
    alone is too long, characters are dropped instead. Text outside the fields stays as it is.

    Args:
        prompt: what to shorten; its fields may not overlap.
        budget: tokens at most.
        encode: gives the token ids of the whole prompt with this text, template included.
        longest_token: characters of the tokenizer's longest token. Text of more than `budget` times as many
            characters is too long whatever it says, and is never given to `encode`: that keeps a field
            of 10^6 characters cheap.

    Raises:
        PromptTooLong: it does not fit with every field empty.
    """
    limit = budget * longest_token

    def fits(text: str) -> Sequence[int] | None:
        if len(text) > limit:
            return None
        ids = encode(text)
        return ids if len(ids) <= budget else None

    whole = fits(prompt.text)
    if whole is not None:
        return Cut(prompt.text, whole, cut=False)
    kept = [end for _, end in prompt.fields]
    for number in sorted(range(len(kept)), key=lambda n: prompt.fields[n][0] - prompt.fields[n][1]):
        start, end = prompt.fields[number]
        kept[number] = start
        empty = _text(prompt, kept)
        ids = fits(empty)
        if ids is None:
            continue  # Even without this field it is too long: the field stays empty, the next one is cut.
        before, after = _around(prompt, kept, number)
        return _shorten(before, prompt.text[start:end], after, fits) or Cut(empty, ids, cut=True)
    raise PromptTooLong(len(encode(_text(prompt, kept))), budget)


def _text(prompt: Prompt, kept: Sequence[int]) -> str:
    """The prompt with each field ending at `kept`."""
    before, after = _around(prompt, kept, len(kept))
    return before + after


def _around(prompt: Prompt, kept: Sequence[int], number: int) -> tuple[str, str]:
    """What stands before and after field `number`, with each other field ending at `kept`."""
    parts: list[str] = []
    last = 0
    split = 0
    for index, (start, end) in enumerate(prompt.fields):
        parts.append(prompt.text[last:start])
        if index == number:
            split = len(parts)
        else:
            parts.append(prompt.text[start : kept[index]])
        last = end
    parts.append(prompt.text[last:])
    return "".join(parts[:split]), "".join(parts[split:])


def _shorten(before: str, field: str, after: str, fits: Fits) -> Cut | None:
    """Keep the words of a field that fit between its surroundings; None where not a letter fits."""
    words = [match.end() for match in _WORD.finditer(field)]
    for ends in (words, range(1, words[0]) if words else ()):
        found = _longest(ends, lambda end: fits(before + field[:end] + after))
        if found is not None:
            end, ids = found
            return Cut(before + field[:end] + after, ids, cut=True)
    return None


def _longest(ends: Sequence[int], fits: Callable[[int], Sequence[int] | None]) -> tuple[int, Sequence[int]] | None:
    """The last of `ends` that fits, and its ids, or None; it is taken that what is shorter fits too.

    It doubles up from the first end, so that what is tried is never much longer than what fits.
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
