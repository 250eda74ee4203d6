"""CQE: from the voters' answers to a verdict (paper 4.2).

The rule: with n voters in the lineup at least (n + 1) / 2 valid votes are needed, and yes needs more than
half of the valid ones. With fewer valid votes the row is an error row and its verdict is no.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["CHOICES", "Tally", "answer_of", "audited", "count", "fleiss_kappa", "quorum"]

CHOICES = ("yes", "no")
"""What a voter chooses between."""


def answer_of(p_yes: float) -> str:
    """Return the answer that a probability stands for; a tie is no."""
    return "yes" if p_yes > 0.5 else "no"


def audited(view_id: str, share: float) -> bool:
    """Return whether a view is of the random share of views on which all voters are asked, by its id."""
    return int(view_id[:8], 16) < share * 2**32


def quorum(voters: int) -> int:
    """Return how many valid votes a verdict needs in a lineup of so many voters."""
    return (voters + 1) // 2


class Tally(NamedTuple):
    """How a vote stands.

    Attributes:
        yes: valid votes for the caption.
        no: valid votes against it.
        failed: voters that gave no valid vote.
        outstanding: voters not asked.
    """

    yes: int
    no: int
    failed: int
    outstanding: int

    @property
    def verdict(self) -> bool:
        """The verdict on the votes that are in."""
        return self.has_quorum and self.yes > self.no

    @property
    def has_quorum(self) -> bool:
        """Whether enough votes are valid."""
        return self.yes + self.no >= quorum(sum(self))

    @property
    def decided(self) -> bool:
        """Whether no outstanding vote, nor the failure of one, could change the verdict or its validity."""
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
    """Return Fleiss' κ of yes and no counts, one pair a view; None where it is not defined.

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
