"""The paper's own figures, from ``paper.json``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from caslie_ray.evaluation.answers.results import VARIANT_NAMES, Results
from caslie_ray.evaluation.answers.tables._cells import short
from caslie_ray.tasks import TASKS

__all__ = ["details_of", "figures_of", "numbers", "rows_of"]


@cache
def _paper() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(
        (files("caslie_ray.evaluation.answers.tables") / "paper.json").read_text("utf-8")
    )
    return found


def rows_of(table: str) -> list[dict[str, Any]]:
    """Return the rows of one of the paper's tables, such as ``A7-A13``."""
    return _paper()[table]


def numbers() -> dict[str, str]:
    """Return the number of the paper's table per task, by code."""
    return {row["task"]: row["number"] for row in _paper()["numbers"]}


def figures_of(results: Results, model: str, variant: str | None, splits: Iterable[str]) -> list[str]:
    """Return the paper's primary metric of one model per split and task that `results` have, formatted."""
    cells: list[str] = []
    for split in splits:
        found = {
            row["task"]: row
            for row in _paper()["A7-A13"]
            if (row["model"], row["variant"], row["split"]) == (model, variant, split)
        }
        primary = {task.code: task.metrics.primary for task in TASKS.values()}
        cells += [short(found[code].get(primary[code])) if code in found else "–" for code in results.tasks(split)]
    return cells


def details_of(code: str) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """Return all metrics of one task in the paper: name of the model, and its row per split."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _paper()["A7-A13"]:
        if row["task"] == code:
            name = row["model"] if row["variant"] is None else f"{row['model']} {VARIANT_NAMES[row['variant']]}"
            found.setdefault(name, {})[row["split"]] = row
    return list(found.items())
