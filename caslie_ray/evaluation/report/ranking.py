"""The order of views on the report page: those most worth a look first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from caslie_ray.evaluation.report.shown import ShownView, ShownVote

__all__ = ["Rank", "RankedView", "disagreement", "mean_p_yes", "rank", "rank_of", "worst_first", "worst_of"]

Rank = tuple[int, float, float]
"""Sort key; the smallest is shown first."""


class RankedView(NamedTuple):
    """A view that may be shown: tasks return these instead of rows. Sorts by rank, then by id."""

    rank: Rank
    view_id: str
    partition: str


def disagreement(votes: Sequence[ShownVote]) -> float:
    """Return the share of valid votes that are in the minority: 0 to 0.5, and 0 if there are none."""
    answers = [vote.answer for vote in votes if vote.answer is not None]
    yes = answers.count("yes")
    return min(yes, len(answers) - yes) / len(answers) if answers else 0.0


def mean_p_yes(votes: Sequence[ShownVote]) -> float | None:
    """Return the mean probability of yes; None if no vote has one."""
    known = [vote.p_yes for vote in votes if vote.p_yes is not None and math.isfinite(vote.p_yes)]
    return sum(known) / len(known) if known else None


def rank(votes: Sequence[ShownVote], verdict: bool, error: str | None, helps: bool | None) -> Rank:
    """Return the sort key of a view.

    Verdicts that contradict the truth come first, the most confident ones leading; then error rows; then the rest by
    disagreement. Ties go to the mean probability closest to 0.5.

    Args:
        votes: its votes.
        verdict: whether the caption is used.
        error: the error of its row.
        helps: whether the caption helps; None if the truth is not known.
    """
    mean = mean_p_yes(votes)
    p_yes = 0.5 if mean is None else mean
    if helps is not None and verdict != helps:
        return 0, -p_yes if verdict else p_yes - 1, 0.0
    # Without a probability nothing shows that the votes were close.
    margin = 0.5 if mean is None else abs(p_yes - 0.5)
    return 1 if error is not None else 2, -disagreement(votes), margin


def rank_of(view: ShownView) -> Rank:
    """Return the sort key of a view on the page; see `rank`."""
    return rank(view.votes, view.verdict, view.error, view.truth.helps if view.truth is not None else None)


def worst_first(views: Iterable[ShownView]) -> list[ShownView]:
    """Return views in the order of `rank`."""
    return sorted(views, key=rank_of)


def worst_of(views: Iterable[RankedView], at_most: int) -> list[RankedView]:
    """Return the first `at_most` views in the order of `rank`. The worst of several parts are the worst of all."""
    return sorted(views)[:at_most]
