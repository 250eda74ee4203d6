"""Probabilities of options, from the distribution of the next token after what distinguishes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from caslie_ray.errors import EngineError

__all__ = ["Choose", "SameOptions", "option_probabilities"]

Choose = Callable[[str, Sequence[str]], Awaitable[Sequence[float]]]
"""Returns the probability of each text as the continuation of an answer that begins with a prefix."""


class SameOptions(EngineError):
    """Two options are equal, or one continues another, so that their first differing words do not decide."""


async def option_probabilities(options: Sequence[str], choose: Choose) -> list[float]:
    """Return the probability of each option; they sum to 1.

    Options that begin with the same words (`very positive`, `very negative`) share the probability of these words; how
    they share it is read after these words, in another forward pass.

    Raises:
        SameOptions: two options are equal, or one continues another.
    """
    return await _shares([option.split() for option in options], "", choose)


async def _shares(options: Sequence[Sequence[str]], prefix: str, choose: Choose) -> list[float]:
    groups: dict[str, list[int]] = {}
    for index, words in enumerate(options):
        if not words:
            raise SameOptions("the options are not different, or one continues another")
        groups.setdefault(words[0].casefold(), []).append(index)
    groups_shares: Sequence[float] = (1.0,)
    if len(groups) > 1:
        groups_shares = await choose(prefix, [" ".join(options[members[0]]) for members in groups.values()])
    shares = [0.0] * len(options)
    for members, share in zip(groups.values(), groups_shares, strict=True):
        inner: Sequence[float] = (1.0,)
        if len(members) > 1:
            longer = f"{prefix} {options[members[0]][0]}".strip()
            inner = await _shares([options[index][1:] for index in members], longer, choose)
        for index, part in zip(members, inner, strict=True):
            shares[index] = share * part
    return shares
