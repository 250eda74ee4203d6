"""Tables 4 and 5: overall performance, and task-specific against generalist models."""

from __future__ import annotations

from collections.abc import Iterable

from caslie_ray.evaluation.answers.metrics import mean_of
from caslie_ray.evaluation.answers.reading import TEST_SPLITS
from caslie_ray.evaluation.answers.results import Results
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
    with_interval,
)
from caslie_ray.evaluation.answers.tables._table import Table
from caslie_ray.tasks import TASKS

__all__ = ["generalist", "overall"]


def _heads(results: Results, splits: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{SPLIT_TITLES[split]} {code}" for split in splits for code in results.tasks(split))


def _figures(results: Results, model: str, variant: str, splits: Iterable[str]) -> list[str]:
    cells: list[str] = []
    for split in splits:
        found = {one.task.code: one for one in results.cells(model, variant, split)}
        cells += [short(found[code].primary.value) if code in found else "–" for code in results.tasks(split)]
    return cells


def overall(results: Results) -> Table | None:
    """Return Table 4; None without answers of `caslie`."""
    if "caslie" not in results.variants:
        return None
    rows = [
        (PAPERS, name, *paper.figures_of(results, name, None, TEST_SPLITS))
        for name in dict.fromkeys(row["model"] for row in paper.rows_of("A7-A13") if row["variant"] is None)
    ]
    rows += [
        (PAPERS, name, *paper.figures_of(results, name, "caslie", TEST_SPLITS))
        for name in ("CASLIE-L", "CASLIE-M", "CASLIE-S")
    ]
    for model in results.models:
        rows.append((OURS, f"CASLIE on {model}", *_figures(results, model, "caslie", TEST_SPLITS)))
    rows.append((OURS, "captions used, %", *_usage(results, "caslie")))
    return Table(
        "4", "Overall performance, primary metric of each task", ("", "model", *_heads(results, TEST_SPLITS)),
        tuple(rows),
        "The paper's figures are from its Tables A7 to A13 and another data set: they show the layout and the order of"
        " magnitude, and cannot be compared.",
    )  # fmt: skip


def _usage(results: Results, variant: str) -> list[str]:
    names = {task.code: name for name, task in TASKS.items()}
    shares = [results.used.get((variant, names[code], split)) for split in TEST_SPLITS for code in results.tasks(split)]
    return ["–" if share is None else f"{100 * share:.1f}" for share in shares]


def generalist(results: Results) -> Table | None:
    """Return Table 5; None without task-specific models."""
    if "task-specific" not in results.variants:
        return None
    rows = []
    for model in results.models:
        for split in TEST_SPLITS:
            for variant, name in (("task-specific", "task-specific"), ("caslie", "generalist")):
                cells = results.cells(model, variant, split)
                if cells:
                    rows.append(
                        (OURS, f"{model} {SPLIT_TITLES[split]}, {name}", *by_task(cells), with_interval(mean_of(cells)))
                    )
            gain, specific = results.pair(model, "caslie", "task-specific", split)
            if gain:
                rows.append(
                    (OURS, f"{model} {SPLIT_TITLES[split]}, mean improvement", *blank(), percent(gain, specific))
                )
    return Table(
        "5", "Task-specific and generalist models", ("", "model", *codes(), "mean [95%]"), tuple(rows),
        "The paper reports that its generalists of sizes L, M and S improve on task-specific models by 44.8%, 7.3% and"
        " 15.4% over all tasks but PSI.",
    )  # fmt: skip
