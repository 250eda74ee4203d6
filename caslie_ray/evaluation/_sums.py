"""Sums over views, and bootstrap intervals of what is made from them.

Every figure is a function of sums: a rate is one sum by another, a balanced accuracy the mean of two rates.
The sums are kept by bucket of images, since the views of one image are not independent: buckets are resampled,
not views.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bootstrap", "Estimate", "Sums", "Values"]

_BUCKET_DIGITS = 3  # of the image's id in hexadecimal: 4,096 buckets
_CHUNK = 64  # resamples at once, which bounds the memory

Values = NDArray[np.float64]


class Sums:
    """Named sums by bucket. They pickle small, and those of several partitions add up."""

    def __init__(self) -> None:
        self._by_name: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, name: str, image_id: str, amount: float = 1.0) -> None:
        """Add to a sum."""
        self._by_name[name][image_id[:_BUCKET_DIGITS]] += amount  # type: ignore[assignment]  # typeshed has only int

    def merge(self, other: Sums) -> None:
        """Take in the sums of another partition."""
        for name, found in other._by_name.items():
            self._by_name[name].update(found)

    def total(self, name: str) -> float:
        """A sum over all buckets; 0 where nothing was added."""
        return float(sum(self._by_name[name].values())) if name in self._by_name else 0.0

    def names(self, prefix: str = "") -> list[str]:
        """The names that begin with a prefix, sorted."""
        return sorted(name for name in self._by_name if name.startswith(prefix))

    def spread(self, name: str) -> int:
        """The number of buckets that a sum is spread over."""
        return sum(1 for amount in self._by_name.get(name, Counter()).values() if amount)

    def column(self, name: str, buckets: list[str]) -> Values:
        """A sum by bucket."""
        found = self._by_name.get(name, Counter())
        return np.array([found.get(bucket, 0) for bucket in buckets], dtype=np.float64)

    def buckets(self) -> list[str]:
        """All buckets that something was added to, sorted."""
        return sorted({bucket for found in self._by_name.values() for bucket in found})


class Estimate(NamedTuple):
    """A figure with its 95% interval; None where it is not defined, such as a rate of nothing.

    `n` is the number of views that it is of.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        """The figure as summaries have it, to six digits."""
        found = {"value": self.value, "low": self.low, "high": self.high}
        return {**{key: None if x is None else round(x, 6) for key, x in found.items()}, "n": self.n}


class Bootstrap:
    """Figures with percentile intervals over resampled buckets, the same resamples for every figure."""

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

    def estimate(
        self, statistic: Callable[[Callable[[str], Values]], Values], n: str, wholes: Sequence[str] = ()
    ) -> Estimate:
        """Estimate a figure.

        Resamples of a share of nothing or of all are all alike and say nothing: its interval is the exact
        (Clopper-Pearson) one for as many independent cases as there are buckets.

        Args:
            statistic: makes the figure from sums, which it gets by name, elementwise for any number of resamples.
            n: the sum that counts the views it is of.
            wholes: the sums that it is a share of, where that is not `n`; of a mean of shares each one's.
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
            room = [1 - 0.025 ** (1 / max(1, self._sums.spread(name))) for name in wholes or (n,)]
            low, high = max(0.0, value - sum(room) / len(room)), min(1.0, value + sum(room) / len(room))
        return Estimate(value, low, high, count)

    def rate(self, part: str, whole: str) -> Estimate:
        """Estimate one sum's share of another."""
        return self.estimate(lambda of: of(part) / of(whole), whole)
