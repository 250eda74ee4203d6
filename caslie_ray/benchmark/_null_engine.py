"""An engine that answers without computing, to measure a job's own overhead.

Named in a profile as ``caslie_ray.benchmark._null_engine:load``. Its captions and votes mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from caslie_ray.engines import Choice, EngineSpec, EngineStats, Generation, Request

__all__ = ["NULL_ENGINE", "NullEngine", "load"]

NULL_ENGINE = f"{__name__}:load"
"""Its name in a profile."""


class NullEngine:
    """Derives answers from a request's key; half of the votes are yes, so early exit skips some."""

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Return a short text per request."""
        return [Generation(one.key, f"A product as it is sold, number {one.key}.", 400, 20, False) for one in requests]

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return probabilities per request, drawn from its key."""
        shares = [int(request.key[:8], 16) / 2**32 for request in requests]
        return [Choice(one.key, (p, 1 - p), 300, False) for one, p in zip(requests, shares, strict=True)]

    def stats(self) -> EngineStats:
        """Return empty statistics."""
        return EngineStats()

    def close(self) -> None:
        """Do nothing."""


def load(spec: EngineSpec) -> NullEngine:
    """Return the engine; no checkpoint is loaded."""
    return NullEngine()
