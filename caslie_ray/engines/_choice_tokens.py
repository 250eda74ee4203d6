"""First tokens of the answers to a multiple-choice request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from caslie_ray.errors import EngineError

__all__ = ["ChoiceError", "first_token_ids"]


class ChoiceError(EngineError):
    """A choice has no first token of its own, so that its probability cannot be read from one forward pass."""


def first_token_ids(
    encode: Callable[[str], Sequence[int]], choices: Sequence[str], unknown: int | None
) -> tuple[tuple[int, ...], ...]:
    """Return the distinct ids of the first tokens of each choice, in order.

    Each choice is spelled as given, in lower, upper and title case, with and without a leading space. The unknown
    token and ids that two choices share are left out.

    Args:
        encode: returns the token ids of a text, without special tokens.
        choices: the possible answers.
        unknown: id of the unknown token, if there is one.

    Raises:
        ValueError: fewer than two choices, or two equal ones.
        ChoiceError: a choice has no first token of its own.
    """
    if len(choices) < 2 or len({choice.strip().casefold() for choice in choices}) < len(choices):
        raise ValueError(f"there must be at least two choices, all of them different: {list(choices)}")
    firsts = [_firsts(encode, choice.strip()) - {unknown} for choice in choices]
    counts = Counter(token for ids in firsts for token in ids)
    shared = {token for token, count in counts.items() if count > 1}
    for choice, ids in zip(choices, firsts, strict=True):
        if not ids - shared:
            raise ChoiceError(f"choice {choice!r} has no first token of its own among {list(choices)}")
    return tuple(tuple(sorted(token for token in ids - shared if token is not None)) for ids in firsts)


def _firsts(encode: Callable[[str], Sequence[int]], choice: str) -> set[int | None]:
    # Some tokenizers prepend a space to any text, but not after a line break, so each spelling is encoded both ways.
    lead = "\n"
    before = list(encode(lead))
    ids: set[int | None] = set()
    for word in {choice, choice.lower(), choice.upper(), choice.capitalize()}:
        for text in (word, f" {word}"):
            alone, after = list(encode(text)), list(encode(lead + text))
            ids.update(alone[:1])
            if after[: len(before)] == before:
                ids.update(after[len(before) :][:1])
    return ids
