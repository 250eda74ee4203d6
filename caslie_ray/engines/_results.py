"""Builds `Generation` and `Choice` results and updates engine statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from caslie_ray.engines._base import Choice, EngineStats, Failure, Generation, Request
from caslie_ray.engines._request_encoder import Row

__all__ = ["Written", "choice", "counted", "generation"]


class Written(NamedTuple):
    """A generated text.

    Attributes:
        text: stripped, without special tokens.
        tokens: number of tokens, including the end token.
        truncated: whether it reached the token limit without an end token.
    """

    text: str
    tokens: int
    truncated: bool


def generation(request: Request, row: Row | None, answer: Written | Failure) -> Generation:
    """Return the result of a `generate` request: a text, or why there is none."""
    tokens, cut, captions_cut = (row.tokens, row.cut, row.captions_cut) if row is not None else (0, False, False)
    if isinstance(answer, Failure):
        return Generation(request.key, "", tokens, 0, cut, answer, captions_cut)
    return Generation(request.key, answer.text, tokens, answer.tokens, cut, None, captions_cut, answer.truncated)


def choice(request: Request, row: Row | None, answer: tuple[float, ...] | Failure) -> Choice:
    """Return the result of a `choose` request: one probability per choice, or why there are none."""
    tokens, cut = (row.tokens, row.cut) if row is not None else (0, False)
    if not isinstance(answer, Failure) and not all(0.0 <= p <= 1.0 for p in answer):
        answer = Failure(f"the model's probabilities are not finite: {answer}", retryable=False)
    if isinstance(answer, Failure):
        return Choice(request.key, (), tokens, cut, answer)
    return Choice(request.key, answer, tokens, cut)


def counted(stats: EngineStats, answers: Sequence[Generation | Choice], seconds: float) -> EngineStats:
    """Return `stats` with these answers added."""
    return replace(
        stats,
        calls=stats.calls + len(answers),
        failures=stats.failures + sum(answer.failure is not None for answer in answers),
        prompt_tokens=stats.prompt_tokens + sum(answer.prompt_tokens for answer in answers),
        new_tokens=stats.new_tokens + sum(getattr(answer, "new_tokens", 0) for answer in answers),
        seconds=stats.seconds + seconds,
    )
