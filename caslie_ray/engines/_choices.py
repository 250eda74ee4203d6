"""Which tokens an answer may begin with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from caslie_ray.errors import EngineError

__all__ = ["first_token_ids"]


def first_token_ids(
    encode: Callable[[str], Sequence[int]], choices: Sequence[str], unknown: int | None
) -> tuple[tuple[int, ...], ...]:
    """The distinct ids of the first tokens of each choice, in the order of the choices.

    Each choice is spelled as given, in lower, upper and title case, with and without a space before it. Ids
    that two choices share say nothing and are left out, and so is the unknown token.

    Args:
        encode: token ids of a text, without special tokens.
        choices: what may be answered.
        unknown: id of the unknown token, if there is one.

    Raises:
        ValueError: fewer than two choices, or two that are alike.
        EngineError: a choice has no first token of its own.
    """
    if len(choices) < 2 or len({choice.strip().casefold() for choice in choices}) < len(choices):
        raise ValueError(f"there must be at least two choices, all of them different: {list(choices)}")
    firsts = [_firsts(encode, choice.strip()) - {unknown} for choice in choices]
    counts = Counter(token for ids in firsts for token in ids)
    shared = {token for token, count in counts.items() if count > 1}
    for choice, ids in zip(choices, firsts, strict=True):
        if not ids - shared:
            raise EngineError(f"choice {choice!r} has no first token of its own among {list(choices)}")
    return tuple(tuple(sorted(token for token in ids - shared if token is not None)) for ids in firsts)


def _firsts(encode: Callable[[str], Sequence[int]], choice: str) -> set[int | None]:
    # Some tokenizers put a space before any text that they are given. After a line break they add none, so
    # each spelling is looked at in both places.
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
