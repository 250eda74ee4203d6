"""The results of a run's models as plots of the page: tables, the ablation with intervals, confusion, curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from caslie_ray.errors import RunError
from caslie_ray.evaluation._answers import FAILED, Answered
from caslie_ray.evaluation._results import Measured
from caslie_ray.evaluation._scores import Interval, mean_of
from caslie_ray.evaluation._tables import NAMES, Table, tables_of
from caslie_ray.evaluation.page import Bar, Curves, Figure, Grid, Matrix, Plot
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
            found = {name: results.cells(model, name, split) for name in results.variants}
            whole = {name: cells for name, cells in found.items() if cells}
            bars = [_bar(name, mean_of(cells), sum(one.n for one in cells), "all") for name, cells in whole.items()]
            for code in results.tasks(split):
                for name, cells in whole.items():
                    bars += [_bar(name, one.primary, one.n, code) for one in cells if one.task.code == code]
            if bars:
                figures.append(
                    Figure(
                        f"What captions are worth, {words}",
                        f"Primary metric of each task, {model}; lines are 95% intervals. An answer that cannot be read"
                        " counts as wrong.",
                        tuple(bars),
                    )
                )
    return figures


def _bar(name: str, found: Interval, n: int, group: str) -> Bar:
    return Bar(name, found.value, found.low, found.high, n, group)


def _confusion(measured: Measured) -> list[Matrix]:
    figures = []
    for cell, answered in measured.answers.items():
        task = TASKS[cell.task]
        if task.labels and cell.variant == "caslie" and cell.split in _SPLITS:
            values = _rows(answered, task.labels)
            figures.append(
                Matrix(
                    f"{task.code}, {_SPLITS[cell.split]}: true and answered",
                    f"CASLIE on {cell.model}: rows are the true labels, columns what was answered, as shares of a row.",
                    task.labels,
                    values,
                    (*task.labels, "failed"),
                )
            )
    return figures


def _rows(answered: Answered, labels: tuple[str, ...]) -> tuple[tuple[float | None, ...], ...]:
    counts = np.zeros((len(labels), len(labels) + 1))
    columns = {name: at for at, name in enumerate((*labels, FAILED))}
    for true, said in zip(answered.truth, answered.answers, strict=True):
        if true in labels:
            counts[labels.index(true), columns.get(said, len(labels))] += 1
    totals = counts.sum(1)
    return tuple(
        tuple(float(count / total) if total else None for count in row)
        for row, total in zip(counts, totals, strict=True)
    )


def _grid(table: Table) -> Grid:
    strong = tuple(at for at, row in enumerate(table.rows) if row[0] == "ours")
    return Grid(table.heading, table.note, table.columns, table.rows, strong)


def curves_of(run: Run) -> list[Curves]:
    """Return loss and validation of the models that a run holds, each model once.

    Raises:
        RunError: the store refuses.
    """
    records = _records(run)
    if not records:
        return []
    shown = [name for name in _CURVED if name in records] or sorted(records)[:6]
    loss = tuple((NAMES.get(name, name), _points(records[name]["curve"], "loss")) for name in shown)
    plots = [Curves("Training loss", "Mean loss of an answer's token at each step.", "nats", loss)]
    for what, title in (("loss", "Validation loss"), ("metric", "Validation metric")):
        lines = tuple((NAMES.get(name, name), _points(records[name]["validations"], what)) for name in shown)
        if any(points for _, points in lines):
            said = "Mean of the tasks' primary metrics" if what == "metric" else "Mean loss of an answer's token"
            plots.append(Curves(title, f"{said}, on samples that are held back.", "", lines))
    return plots


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[tuple[float, float], ...]:
    every = max(1, len(rows) // 200)
    return tuple((float(row["step"]), float(row[name])) for row in rows[::every] if name in row)


def _records(run: Run) -> dict[str, dict[str, Any]]:
    """The records of finished models by name, the newest of each name."""
    found: dict[str, dict[str, Any]] = {}
    for info in sorted(run.listed(run.path("models")), key=lambda info: info.mtime_ns or 0):
        try:
            record = run.read_json(f"models/{info.base_name}/training.json")
        except RunError:
            continue
        if record is not None:
            found[record["model"]] = record
    return found
