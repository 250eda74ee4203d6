"""Bootstrap intervals of figures that are functions of sums, such as rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from caslie_ray.evaluation.captions.sums import Sums, Values

__all__ = ["Bootstrap", "Estimate", "Statistic", "SumOf"]

_CHUNK = 64  # resamples at a time, which bounds memory

SumOf = Callable[[str], Values]
"""Returns a sum by its name: one value per resample."""

Statistic = Callable[[SumOf], Values]
"""Computes a figure from sums, elementwise for any number of resamples."""


class Estimate(NamedTuple):
    """A figure with its 95% interval and the number of views behind it; None if undefined, such as 0/0."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Return the figure as in summaries, rounded to six digits."""
        found = {"value": self.value, "low": self.low, "high": self.high}
        return {**{key: None if x is None else round(x, 6) for key, x in found.items()}, "n": self.n}


class Bootstrap:
    """Percentile intervals over resampled buckets. All figures share the same resamples."""

    def __init__(self, sums: Sums, resamples: int, seed: int = 0) -> None:
        self._sums = sums
        self._buckets = sums.buckets()
        rng = np.random.default_rng(seed)
        count = len(self._buckets)
        even = np.full(count, 1 / count) if count else np.empty(0)
        self._weights: list[NDArray[np.int64]] = []
        for start in range(0, resamples if count else 0, _CHUNK):
            self._weights.append(rng.multinomial(count, even, size=min(_CHUNK, resamples - start)))
        self._drawn: dict[str, Values] = {}

    def _resampled(self, name: str) -> Values:
        if name not in self._drawn:
            column = self._sums.column(name, self._buckets)
            parts = [weights @ column for weights in self._weights]
            self._drawn[name] = np.concatenate(parts) if parts else np.zeros(1)
        return self._drawn[name]

    def estimate(self, statistic: Statistic, n: str, wholes: Sequence[str] = ()) -> Estimate:
        """Estimate a figure.

        If every resample of a share is 0 or 1, the interval is the exact one (Clopper-Pearson), with as many
        independent cases as there are buckets.

        Args:
            statistic: the figure.
            n: the sum that counts the views behind it.
            wholes: denominators of the shares that the figure averages; `n` if empty.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(lambda name: np.array([self._sums.total(name)]))[0])
            drawn = statistic(self._resampled)
        count = round(self._sums.total(n))
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(value) or not len(drawn):
            return Estimate(None, None, None, count)
        low, high = (float(bound) for bound in np.percentile(drawn, (2.5, 97.5)))
        if low == high == value and value in (0.0, 1.0):
            margins = [1 - 0.025 ** (1 / max(1, self._sums.spread(name))) for name in wholes or (n,)]
            margin = sum(margins) / len(margins)
            low, high = max(0.0, value - margin), min(1.0, value + margin)
        return Estimate(value, low, high, count)

    def rate(self, part: str, whole: str) -> Estimate:
        """Estimate the ratio of two sums."""
        return self.estimate(lambda of: of(part) / of(whole), whole)
