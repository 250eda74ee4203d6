"""Table 6: text only, every caption, captions that won."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caslie_ray.evaluation.answers.metrics import difference, mean_of
from caslie_ray.evaluation.answers.reading import TEST_SPLITS
from caslie_ray.evaluation.answers.results import VARIANT_NAMES, Results
from caslie_ray.evaluation.answers.tables import _paper as paper
from caslie_ray.evaluation.answers.tables._cells import (
    OURS,
    PAPERS,
    SPLIT_TITLES,
    blank,
    by_task,
    codes,
    percent,
    short,
    signed,
    with_interval,
)
from caslie_ray.evaluation.answers.tables._table import Table
from caslie_ray.fusion import SHUFFLED, VERDICT_ONLY

__all__ = ["ablation"]

_VARIANTS = ("text", "uia", "caslie")


def ablation(results: Results) -> Table | None:
    """Return Table 6; None with fewer than two variants."""
    shown = [name for name in (*_VARIANTS, SHUFFLED, VERDICT_ONLY, "base") if name in results.variants]
    if len(shown) < 2:
        return None
    rows = []
    for split in TEST_SPLITS:
        for size in ("CASLIE-L", "CASLIE-M", "CASLIE-S"):
            for variant in _VARIANTS:
                figures = _aligned(results, split, paper.figures_of(results, size, variant, [split]))
                values = [float(figure) for figure in figures if figure not in ("–", "")]
                mean = short(float(np.mean(values))) if values else "–"
                rows.append((PAPERS, f"{SPLIT_TITLES[split]} {size} {VARIANT_NAMES[variant]}", *figures, mean))
        for model in results.models:
            for variant in shown:
                cells = results.cells(model, variant, split)
                if cells:
                    rows.append(
                        (
                            OURS,
                            f"{SPLIT_TITLES[split]} {model} {VARIANT_NAMES[variant]}",
                            *by_task(cells),
                            with_interval(mean_of(cells)),
                        )
                    )
            for variant in shown:
                mine, its = results.pair(model, "caslie", variant, split)
                if variant != "caslie" and mine:
                    gap = difference(mine, its)
                    rows.append(
                        (OURS, f"{SPLIT_TITLES[split]} CASLIE − {VARIANT_NAMES[variant]}", *blank(), signed(gap))
                    )
                    over = f"{SPLIT_TITLES[split]} CASLIE over {VARIANT_NAMES[variant]}, mean improvement"
                    rows.append((OURS, over, *blank(), percent(mine, its)))
    for model in results.models:
        for variant in shown:
            pairs = [results.pair(model, "caslie", variant, split) for split in TEST_SPLITS]
            both = [[one for pair in pairs for one in pair[side]] for side in (0, 1)]
            if variant != "caslie" and both[0]:
                name = f"IND and OOD CASLIE over {VARIANT_NAMES[variant]}, mean improvement"
                rows.append((OURS, name, *blank(), percent(*both)))
    return Table(
        "6", "Ablation: text only, every caption, captions that won", ("", "variant", *codes(), "mean [95%]"),
        tuple(rows),
        "An answer that cannot be parsed counts as wrong here; the paper leaves it out (Tables A7 to A13 show both)."
        " Improvement: the mean of the relative gains per task and split, as the paper computes it.",
    )  # fmt: skip


def _aligned(results: Results, split: str, figures: Sequence[str]) -> list[str]:
    here = dict(zip(results.tasks(split), figures, strict=True))
    return [here.get(code, "–") for code in codes()]
