"""A measured value with its confidence interval."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Interval"]


class Interval(NamedTuple):
    """A value and its 95% interval."""

    value: float
    low: float
    high: float
