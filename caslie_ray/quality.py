"""CQE: the verdict of the voters (paper 4.2).

With n voters in the lineup, a verdict needs at least (n + 1) / 2 valid votes, and is yes if more than half of them are.
With fewer valid votes the row is an error row and its verdict is no.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["CHOICES", "Tally", "answer_of", "audited", "count", "fleiss_kappa", "quorum"]

CHOICES = ("yes", "no")
"""The choices of a voter."""


def answer_of(p_yes: float) -> str:
    """Return the answer of a probability; a tie is no."""
    return "yes" if p_yes > 0.5 else "no"


def audited(view_id: str, share: float) -> bool:
    """Return whether a view is in the audit sample, on which all voters vote; sampled by id."""
    return int(view_id[:8], 16) < share * 2**32


def quorum(voters: int) -> int:
    """Return the number of valid votes that a verdict needs, given the number of voters."""
    return (voters + 1) // 2


class Tally(NamedTuple):
    """The state of a vote.

    Attributes:
        yes: valid votes for the caption.
        no: valid votes against it.
        failed: voters without a valid vote.
        outstanding: voters not asked yet.
    """

    yes: int
    no: int
    failed: int
    outstanding: int

    @property
    def verdict(self) -> bool:
        """The verdict by the votes so far."""
        return self.has_quorum and self.yes > self.no

    @property
    def has_quorum(self) -> bool:
        """Whether enough votes are valid."""
        return self.yes + self.no >= quorum(sum(self))

    @property
    def decided(self) -> bool:
        """Whether no outstanding vote, valid or failed, can change the verdict or its validity (early exit)."""
        return self.has_quorum and (self.yes > self.no + self.outstanding or self.yes + self.outstanding <= self.no)


def count(answers: Sequence[str | None], voters: int) -> Tally:
    """Count the answers of the voters asked so far.

    Args:
        answers: yes, no, or None for a voter that failed.
        voters: how many voters the lineup has.
    """
    yes, no = answers.count("yes"), answers.count("no")
    return Tally(yes, no, len(answers) - yes - no, voters - len(answers))


def fleiss_kappa(rows: Sequence[tuple[int, int]]) -> float | None:
    """Return Fleiss' κ of yes and no counts, one pair per view; None if it is undefined.

    Args:
        rows: (yes, no) of views on which the same number of voters, at least two, answered.

    Raises:
        ValueError: the views were not all voted on by the same number of voters.
    """
    if not rows:
        return None
    voters = sum(rows[0])
    if any(sum(row) != voters for row in rows):
        raise ValueError("Fleiss' kappa needs the same number of votes on every view")
    if voters < 2:
        return None
    observed = sum(yes * (yes - 1) + no * (no - 1) for yes, no in rows) / (len(rows) * voters * (voters - 1))
    share = sum(yes for yes, _ in rows) / (len(rows) * voters)
    expected = share**2 + (1 - share) ** 2
    return None if expected == 1 else (observed - expected) / (1 - expected)
