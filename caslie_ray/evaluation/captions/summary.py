"""The figures of captions and verdicts with 95% intervals, as in ``RUN/summary/evaluate.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caslie_ray.evaluation.captions.agreement import describe_agreement
from caslie_ray.evaluation.captions.bootstrap import Bootstrap
from caslie_ray.evaluation.captions.sums import Sums

__all__ = ["describe", "names_of_sets"]


def describe(sums: Sums, sets: Sequence[Sequence[str]], resamples: int) -> dict[str, Any]:
    """Return all figures, each a mapping of value, low, high (95%) and n, the number of views behind it.

    Args:
        sums: the counts of all partitions.
        sets: voters whose majority is measured.
        resamples: bootstrap resamples.
    """
    boot = Bootstrap(sums, resamples)
    figures: dict[str, Any] = {
        "used": boot.rate("views/used", "views").as_dict(),
        "failed": boot.rate("views/failed", "views").as_dict(),
        "agreement": describe_agreement(sums, boot),
        "truth": None,
    }
    if sums.total("known"):
        from caslie_ray.evaluation.captions.truth_summary import describe_truth  # imports the miniature world

        figures["truth"] = describe_truth(sums, boot, sets)
    return figures


def names_of_sets(sets: Sequence[Sequence[str]]) -> list[str]:
    """Return display names of sets of voters: by size if the sizes differ, as in Table A4; else by the voters."""
    sizes = [len(names) for names in sets]
    return [f"of {len(names)}" if sizes.count(len(names)) == 1 else ", ".join(names) for names in sets]
