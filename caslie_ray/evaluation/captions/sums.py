"""Named sums over views, kept per bucket of images: tasks count, the driver merges."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sums", "Values"]

_BUCKET_DIGITS = 3  # leading hexadecimal digits of the image id: 4,096 buckets

Values = NDArray[np.float64]


class Sums:
    """Named sums per bucket. Their size does not grow with the views, and those of several tasks add up.

    The views of one image are not independent, so buckets of images are the unit of resampling.
    """

    def __init__(self) -> None:
        self._by_name: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, name: str, image_id: str, amount: float = 1.0) -> None:
        """Add to a sum."""
        self._by_name[name][image_id[:_BUCKET_DIGITS]] += amount  # type: ignore[assignment]  # typeshed has only int

    def merge(self, other: Sums) -> None:
        """Add the sums of another task."""
        for name, found in other._by_name.items():
            self._by_name[name].update(found)

    def total(self, name: str) -> float:
        """Return a sum over all buckets; 0 if nothing was added."""
        return float(sum(self._by_name[name].values())) if name in self._by_name else 0.0

    def names(self, prefix: str = "") -> list[str]:
        """Return the names that start with a prefix, sorted."""
        return sorted(name for name in self._by_name if name.startswith(prefix))

    def spread(self, name: str) -> int:
        """Return the number of buckets in which a sum is not zero."""
        return sum(1 for amount in self._by_name.get(name, Counter()).values() if amount)

    def column(self, name: str, buckets: list[str]) -> Values:
        """Return a sum per bucket, of shape ``(len(buckets),)``."""
        found = self._by_name.get(name, Counter())
        return np.array([found.get(bucket, 0) for bucket in buckets], dtype=np.float64)

    def buckets(self) -> list[str]:
        """Return all buckets that something was added to, sorted."""
        return sorted({bucket for found in self._by_name.values() for bucket in found})
