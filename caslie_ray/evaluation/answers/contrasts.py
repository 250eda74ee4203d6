"""Selects samples on which variants of a model differ, evenly over tasks, splits and kinds of difference."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

from caslie_ray.hashing import content_id

__all__ = ["Contrast", "Difference", "contrast_of", "evenly"]


class Difference(NamedTuple):
    """A task, a split, and which variants are right."""

    task: str
    split: str
    right: tuple[tuple[str, bool], ...]


class Contrast(NamedTuple):
    """A sample on which variants differ. Sorts by difference, then by a hash of the sample's id.

    The hash makes the choice within a difference random, and the same in every evaluation.
    """

    difference: Difference
    order: str
    sample_id: str
    partition: str


def contrast_of(task: str, split: str, sample_id: str, right: dict[str, bool], partition: str) -> Contrast | None:
    """Return the contrast of a sample; None if all variants are right, or all are wrong."""
    if len(set(right.values())) < 2:
        return None
    return Contrast(Difference(task, split, tuple(sorted(right.items()))), content_id(sample_id), sample_id, partition)


def evenly(found: Iterable[Contrast], at_most: int) -> list[Contrast]:
    """Return up to `at_most` samples: the first of each difference, then the second of each, and so on.

    Selecting from selections of parts is the same as selecting from all, so tasks may select before the driver does.
    """
    by_difference = groupby(sorted(found), key=lambda one: one.difference)
    ranked = [(place, one) for _, members in by_difference for place, one in enumerate(members)]
    return [one for _, one in sorted(ranked)[:at_most]]
