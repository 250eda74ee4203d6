"""The published loop: one image and one prompt at a time, 16 generated tokens per vote, all voters.

It implements the `Engine` interface, so that it gets the same requests as the engines.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from caslie_ray.engines import Choice, EngineSpec, EngineStats, Failure, Generation, Request
from caslie_ray.engines.baseline import PlainModel
from caslie_ray.quality import CHOICES

__all__ = ["VOTE_TOKENS", "PublishedLoop", "load", "read_vote"]

VOTE_TOKENS = 16
_NO_LETTERS = re.compile(r"^\W*")


def read_vote(text: str) -> str | None:
    """Return yes or no if a generated text begins with it, ignoring case and leading punctuation; otherwise None."""
    begin = _NO_LETTERS.sub("", text).lower()
    return next((choice for choice in CHOICES if begin.startswith(choice)), None)


class PublishedLoop:
    """Runs a checkpoint as the published scripts do. The texts of votes are kept in `texts`, by request key."""

    def __init__(self, spec: EngineSpec) -> None:
        started = time.perf_counter()
        self._spec = spec
        self._model = PlainModel(spec)
        self.parameters = self._model.parameters
        self.texts: dict[str, str] = {}
        self._stats = EngineStats(load_seconds=time.perf_counter() - started)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate an answer to each request, one after the other."""
        answers = []
        for request in requests:
            answered = self._model.answer(request, self._spec.max_new_tokens)
            if isinstance(answered, Failure):
                answers.append(Generation(request.key, "", 0, 0, False, answered))
                continue
            answers.append(Generation(request.key, answered.text, answered.prompt_tokens, answered.new_tokens, False))
            self._count(answered.prompt_tokens, answered.new_tokens)
        return answers

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Generate 16 tokens for each request and read yes or no from their beginning; other texts are failures."""
        answers = []
        for request in requests:
            answered = self._model.answer(request, VOTE_TOKENS)
            if isinstance(answered, Failure):
                answers.append(Choice(request.key, (), 0, False, answered))
                continue
            self._count(answered.prompt_tokens, answered.new_tokens)
            self.texts[request.key] = answered.text
            answer = read_vote(answered.text)
            if answer is None:
                failure = Failure("the text begins with neither yes nor no", retryable=False)
                answers.append(Choice(request.key, (), answered.prompt_tokens, False, failure))
            else:
                shares = tuple(float(choice == answer) for choice in choices)
                answers.append(Choice(request.key, shares, answered.prompt_tokens, False))
        return answers

    def stats(self) -> EngineStats:
        """Return statistics since the checkpoint was loaded."""
        return self._stats

    def close(self) -> None:
        """Free the model and its memory."""
        self._model.close()

    def _count(self, prompt_tokens: int, new_tokens: int) -> None:
        stats = self._stats
        self._stats = replace(
            stats, calls=stats.calls + 1, prompt_tokens=stats.prompt_tokens + prompt_tokens,
            new_tokens=stats.new_tokens + new_tokens,
        )  # fmt: skip


load: Callable[[EngineSpec], PublishedLoop] = PublishedLoop
"""Load a checkpoint; see `engines.load_engine`."""
