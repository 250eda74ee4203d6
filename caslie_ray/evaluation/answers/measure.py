"""Measures the answers of a run's models, and writes ``report/metrics.json`` and the tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from caslie_ray.evaluation.answers.contrasts import Contrast
from caslie_ray.evaluation.answers.metrics import Scored, difference, mean_of, metric_rows, score
from caslie_ray.evaluation.answers.outcomes import Cell, Outcomes
from caslie_ray.evaluation.answers.reading import Used, read_answers
from caslie_ray.evaluation.answers.results import Results, UsedShares
from caslie_ray.evaluation.answers.tables import as_latex, as_markdown, tables_of
from caslie_ray.storage.run import Run

if TYPE_CHECKING:  # imports torch, which takes seconds
    from caslie_ray.prediction import Answerer

__all__ = ["METRICS_PATH", "TABLES_PATH", "Measured", "measure", "summary_of", "write_results"]

log = logging.getLogger(__name__)

METRICS_PATH = "report/metrics.json"
TABLES_PATH = "report/tables"
"""Path of the tables inside a run, without ``.md`` and ``.tex``."""


class Measured(NamedTuple):
    """The measured answers.

    Attributes:
        outcomes: outcomes by cell.
        scored: the metrics of each cell.
        results: the same, arranged for tables.
        missing: number of questions without an answer, by variant and split.
        left_out: number of samples that are not measured, by the task's code and split; see `Answers.left_out`.
        contrasts: samples on which variants of the first model differ.
    """

    outcomes: Mapping[Cell, Outcomes]
    scored: list[Scored]
    results: Results
    missing: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, Mapping[str, int]]
    contrasts: Sequence[Contrast]


def measure(
    run: Run,
    answerers: Sequence[Answerer],
    splits: Collection[str],
    resamples: int,
    of_bits: Mapping[str, Mapping[str, Any]] | None = None,
) -> Measured | None:
    """Measure the answers of models; return None if there are none.

    Args:
        run: the run with `instructions` and `predictions`.
        answerers: the models.
        splits: splits of which every question should be answered.
        resamples: bootstrap resamples.
        of_bits: what the verdicts alone predict, for the tables; see `predictions_of_bits`.

    Raises:
        RunError: a table cannot be read.
    """
    found = read_answers(run, answerers, splits)
    for variant, lacking in found.missing.items():
        for split, questions in lacking.items():
            log.warning("%s has not answered %d questions of %s: run predict", variant, questions, split)
    if found.left_out:
        count = sum(sum(splits.values()) for splits in found.left_out.values())
        log.warning(
            "%d samples are not measured, because their true answer is none of their options or labels, such as %s;"
            " correct the source and run ingest again",
            count, found.example,
        )  # fmt: skip
    if not found.cells and not found.left_out:
        return None
    scored = [score(cell, outcomes, resamples) for cell, outcomes in found.cells.items()]
    results = Results(scored, _used_shares(found.captions_used), found.left_out, of_bits)
    return Measured(found.cells, scored, results, found.missing, found.left_out, found.contrasts)


def write_results(run: Run, measured: Measured) -> None:
    """Write the metrics and the tables.

    Raises:
        RunError: a file cannot be written.
    """
    run.put(run.path(METRICS_PATH), json.dumps(metric_rows(measured.scored), indent=1, allow_nan=False).encode())
    tables = tables_of(measured.results)
    run.put(run.path(f"{TABLES_PATH}.md"), as_markdown(tables).encode())
    run.put(run.path(f"{TABLES_PATH}.tex"), as_latex(tables).encode())


def summary_of(measured: Measured) -> dict[str, Any]:
    """Return, by model and split, the mean primary metric per variant, and how much `caslie` exceeds the others.

    Intervals are 95%. Means are over the tasks of a split: seven in domain and five out of domain in the released data.
    """
    results = measured.results
    found: dict[str, Any] = {}
    for model in results.models:
        for split in ("ind", "ood", "validation", "train"):
            means, gaps = {}, {}
            for variant in results.variants:
                cells = results.cells(model, variant, split)
                if not cells:
                    continue
                means[variant] = {
                    **mean_of(cells)._asdict(),
                    "by_task": {one.task.code: one.primary.value for one in cells},
                    "tasks": len(cells),
                    "answers": sum(one.n for one in cells),
                    "failed": sum(one.failed for one in cells),
                }
                mine, its = results.pair(model, "caslie", variant, split)
                if variant != "caslie" and mine:
                    gaps[variant] = difference(mine, its)._asdict()
            if means:
                found.setdefault(model, {})[split] = {"mean_primary": means, "caslie_exceeds": gaps}
    return found


def _used_shares(used: Used) -> UsedShares:
    """The captions that each variant uses, as a share of those of `uia`, which uses all."""
    return {
        (variant, task, split): count / used["uia", task, split]
        for (variant, task, split), count in used.items()
        if used.get(("uia", task, split))
    }
