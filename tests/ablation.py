"""The ablation of the demo: captions help, and captions that the voters chose help more.

``python -m tests.ablation RUN`` checks a run of `make demo` by its ``report/metrics.json`` and exits with 1 if the
order or a gap is not what the README promises.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

__all__ = ["MIN_GAP", "MIN_SAMPLES", "ORDER", "TASKS", "mean_primary", "problems"]

ORDER = ("text", "uia", "caslie")
"""Variants, from the worst to the best: no captions, every caption, captions that the voters chose."""
TASKS = {"ind": 7, "ood": 5}
"""Number of tasks per split that the means are over."""
MIN_GAP = 0.03
"""Smallest difference of the mean primary metric between two variants that follow each other."""
MIN_SAMPLES = 300
"""Answers behind each value."""

Rows = Sequence[Mapping[str, Any]]


def mean_primary(metrics: Rows, split: str, variant: str) -> float:
    """The mean over tasks of the primary metric; NaN when there is none."""
    values = [row["value"] for row in _primary(metrics, split, variant)]
    return fmean(values) if values else float("nan")


def problems(metrics: Rows) -> list[str]:
    """What is wrong with the ablation in the rows of ``report/metrics.json``, one line each; empty if nothing is."""
    found = []
    for split, tasks in TASKS.items():
        for variant in ORDER:
            rows = _primary(metrics, split, variant)
            if len(rows) != tasks:
                found.append(f"{split}: {variant} has {len(rows)} tasks, expected {tasks}")
            small = [f"{row['task']} {row['n']}" for row in rows if row["n"] < MIN_SAMPLES]
            if small:
                found.append(f"{split}: {variant} has fewer than {MIN_SAMPLES} answers: {', '.join(small)}")
        means = {variant: mean_primary(metrics, split, variant) for variant in ORDER}
        for worse, better in pairwise(ORDER):
            gap = means[better] - means[worse]
            if not gap >= MIN_GAP:  # NaN is a problem, too
                found.append(
                    f"{split}: {better} ({means[better]:.3f}) exceeds {worse} ({means[worse]:.3f}) by {gap:.3f}, "
                    f"expected at least {MIN_GAP}"
                )
    return found


def _primary(metrics: Rows, split: str, variant: str) -> list[Mapping[str, Any]]:
    return [row for row in metrics if row["primary"] and (row["split"], row["variant"]) == (split, variant)]


def _main(run: str) -> int:
    metrics = json.loads((Path(run) / "report" / "metrics.json").read_text(encoding="utf-8"))
    for split in TASKS:
        means = " < ".join(f"{variant} {mean_primary(metrics, split, variant):.3f}" for variant in ORDER)
        print(f"ablation, {split}: {means}")
    found = problems(metrics)
    print(*found, sep="\n", end="\n" if found else "", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
