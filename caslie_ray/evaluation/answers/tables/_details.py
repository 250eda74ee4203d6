"""Tables A7 to A13: all metrics of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from caslie_ray.evaluation.answers.metrics import Scored
from caslie_ray.evaluation.answers.reading import TEST_SPLITS
from caslie_ray.evaluation.answers.results import VARIANT_NAMES, Results
from caslie_ray.evaluation.answers.tables import _paper as paper
from caslie_ray.evaluation.answers.tables._cells import OURS, PAPERS, SPLIT_TITLES, left_out_note, short
from caslie_ray.evaluation.answers.tables._table import Table
from caslie_ray.tasks import TASKS

__all__ = ["details"]


def details(results: Results) -> list[Table]:
    """Return a table per task that is measured."""
    tables = []
    for name, task in TASKS.items():
        cells = [one for model in results.models for variant in results.variants for split in TEST_SPLITS
                 for one in results.cells(model, variant, split) if one.cell.task == name]  # fmt: skip
        if not cells:
            continue
        titles = task.metrics.titles
        metrics = list(titles)
        splits = [split for split in TEST_SPLITS if any(one.cell.split == split for one in cells)]
        heads = [f"{SPLIT_TITLES[split]} {title}" for split in splits for title in (*titles.values(), "#Failed")]
        rows = []
        for row_name, found in paper.details_of(task.code):
            line = [short(found.get(split, {}).get(metric)) for split in splits for metric in (*metrics, "failed")]
            rows.append((PAPERS, row_name, *line))
        for model in results.models:
            for variant in results.variants:
                here = {one.cell.split: one for one in cells if (one.cell.model, one.cell.variant) == (model, variant)}
                for suffix, values in _both_ways(here):
                    line = []
                    for split in splits:
                        one = here.get(split)
                        line += [short(values(one).get(metric) if one else None) for metric in metrics]
                        line.append(str(one.failed) if one else "–")
                    rows.append((OURS, f"{model} {VARIANT_NAMES.get(variant, variant)}{suffix}", *line))
        left_out = {code: splits for code, splits in results.left_out.items() if code == task.code}
        number, title = paper.numbers().get(task.code, ""), f"{task.code}, all metrics"
        tables.append(Table(number, title, ("", "model", *heads), tuple(rows), left_out_note(left_out)))
    return tables


_Values = Callable[[Scored], Mapping[str, float]]


def _both_ways(cells: Mapping[str, Scored]) -> list[tuple[str, _Values]]:
    """Failed answers counted as wrong, and also left out if there are any."""
    ways: list[tuple[str, _Values]] = [("", lambda one: one.values)]
    if any(one.failed for one in cells.values()):
        ways.append((", failures left out", lambda one: one.without_failed))
    return ways
