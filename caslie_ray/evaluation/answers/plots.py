"""The results of a run's models as plots of the report page: the ablation, confusion matrices, tables, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caslie_ray.errors import RunError
from caslie_ray.evaluation.answers.measure import Measured
from caslie_ray.evaluation.answers.metrics import mean_of
from caslie_ray.evaluation.answers.outcomes import Outcomes
from caslie_ray.evaluation.answers.results import VARIANT_NAMES
from caslie_ray.evaluation.answers.tables import Table, tables_of
from caslie_ray.evaluation.report.plots import Bar, Curves, Figure, Grid, Matrix, Plot
from caslie_ray.intervals import Interval
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS

__all__ = ["curves_of", "plots_of"]

_SPLITS = {"ind": "in domain", "ood": "out of domain"}
_CURVED = ("text", "uia", "caslie")


def plots_of(measured: Measured) -> list[Plot]:
    """Return the ablation as bars, the confusion matrices of `caslie`, and all tables."""
    return [*_ablation(measured), *_confusion(measured), *(_grid(table) for table in tables_of(measured.results))]


def _ablation(measured: Measured) -> list[Figure]:
    results = measured.results
    figures = []
    for model in results.models:
        for split, words in _SPLITS.items():
            found = {name: cells for name in results.variants if (cells := results.cells(model, name, split))}
            bars = [_bar(name, mean_of(cells), sum(one.n for one in cells), "all") for name, cells in found.items()]
            for code in results.tasks(split):
                for name, cells in found.items():
                    bars += [_bar(name, one.primary, one.n, code) for one in cells if one.task.code == code]
            if bars:
                figures.append(
                    Figure(
                        f"What captions are worth, {words}",
                        f"Primary metric of each task, {model}; lines are 95% intervals. An answer that cannot be"
                        " parsed counts as wrong.",
                        tuple(bars),
                    )
                )
    return figures


def _bar(name: str, found: Interval, n: int, group: str) -> Bar:
    return Bar(name, found.value, found.low, found.high, n, group)


def _confusion(measured: Measured) -> list[Matrix]:
    figures = []
    for cell, outcomes in measured.outcomes.items():
        task = TASKS[cell.task]
        if task.labels and cell.variant == "caslie" and cell.split in _SPLITS:
            values = _rows(outcomes)
            figures.append(
                Matrix(
                    f"{task.code}, {_SPLITS[cell.split]}: confusion matrix",
                    f"CASLIE on {cell.model}: rows are true labels, columns are answers, as shares of the row.",
                    task.labels,
                    values,
                    (*task.labels, "failed"),
                )
            )
    return figures


def _rows(outcomes: Outcomes) -> tuple[tuple[float | None, ...], ...]:
    """The confusion matrix as shares of each true label's row; the last column is failed answers."""
    counts = outcomes.confusion().counts[:-1]
    totals = counts.sum(1)
    return tuple(
        tuple(float(count / total) if total else None for count in row)
        for row, total in zip(counts, totals, strict=True)
    )


def _grid(table: Table) -> Grid:
    strong = tuple(at for at, row in enumerate(table.rows) if row[0] == "ours")
    return Grid(table.heading, table.note, table.columns, table.rows, strong)


def curves_of(run: Run) -> list[Curves]:
    """Return training and validation curves of the models of a run.

    Raises:
        RunError: a file cannot be read.
    """
    records = _records(run)
    if not records:
        return []
    shown = [name for name in _CURVED if name in records] or sorted(records)[:6]
    loss = tuple((VARIANT_NAMES.get(name, name), _points(records[name]["curve"], "loss")) for name in shown)
    plots = [Curves("Training loss", "Mean loss per answer token at each step.", "nats", loss)]
    for what, title in (("loss", "Validation loss"), ("metric", "Validation metric")):
        lines = tuple((VARIANT_NAMES.get(name, name), _points(records[name]["validations"], what)) for name in shown)
        if any(points for _, points in lines):
            name = "Mean of the tasks' primary metrics" if what == "metric" else "Mean loss per answer token"
            plots.append(Curves(title, f"{name}, on the validation split.", "", lines))
    return plots


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[tuple[float, float], ...]:
    every = max(1, len(rows) // 200)
    return tuple((float(row["step"]), float(row[name])) for row in rows[::every] if name in row)


def _records(run: Run) -> dict[str, dict[str, Any]]:
    """The newest record of each finished model, by name."""
    found: dict[str, dict[str, Any]] = {}
    for info in sorted(run.listed(run.path("models")), key=lambda info: info.mtime_ns or 0):
        try:
            record = run.read_json(f"models/{info.base_name}/training.json")
        except RunError:
            continue
        if record is not None:
            found[record["model"]] = record
    return found
