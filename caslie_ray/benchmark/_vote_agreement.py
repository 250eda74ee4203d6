"""Agreement of votes read from generated text, as in the published loop, with those of `choose`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from caslie_ray.benchmark._phases import Vote
from caslie_ray.benchmark._published_loop import read_vote
from caslie_ray.quality import answer_of

__all__ = ["Agreement", "compare_votes"]


class Agreement(NamedTuple):
    """Comparison of votes of the published loop and of `choose`, on equal requests.

    Attributes:
        compared: votes whose text begins with yes or no.
        agreed: those of them that equal the answer of `choose`.
        unread: votes whose text begins with neither; not compared.
        unmatched: votes on captions that the other system did not generate, or without a probability.
        differences: view_id, voter, p_yes and text of each differing vote.
    """

    compared: int
    agreed: int
    unread: int
    unmatched: int
    differences: list[dict[str, Any]]

    @property
    def share(self) -> float | None:
        """Fraction of the compared votes that agree; None if none was compared."""
        return self.agreed / self.compared if self.compared else None


def compare_votes(published: Sequence[Vote], chosen: Sequence[Vote]) -> Agreement:
    """Compare the votes of two systems on equal requests."""
    by_key = {(vote.key, vote.voter): vote.p_yes for vote in chosen}
    compared = agreed = unread = unmatched = 0
    differences = []
    for vote in published:
        p_yes = by_key.get((vote.key, vote.voter))
        if p_yes is None or vote.text is None:
            unmatched += 1
            continue
        answer = read_vote(vote.text)
        if answer is None:
            unread += 1
            continue
        compared += 1
        if answer == answer_of(p_yes):
            agreed += 1
        else:
            differences.append({"view_id": vote.view_id, "voter": vote.voter, "p_yes": p_yes, "text": vote.text})
    return Agreement(compared, agreed, unread, unmatched, differences)
