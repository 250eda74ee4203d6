"""The answers of a run's models, measured: `report/metrics.json`, the tables, and what the page shows of them."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from caslie_ray.evaluation._answers import Answered, Cell, read_answers
from caslie_ray.evaluation._scores import Scored, difference, mean_of, metric_rows, score
from caslie_ray.evaluation._tables import Results, Used, as_latex, as_markdown, tables_of
from caslie_ray.fusion import EXPERIMENTS
from caslie_ray.storage.run import Run

if TYPE_CHECKING:  # it brings torch, which takes seconds
    from caslie_ray.prediction import Answerer

__all__ = ["METRICS_PATH", "TABLES_PATH", "Measured", "measure", "summary_of", "write_results"]

log = logging.getLogger(__name__)

METRICS_PATH = "report/metrics.json"
TABLES_PATH = "report/tables"
"""Where the tables lie in a run, without `.md` and `.tex`."""


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        answers: the answers of each cell.
        scored: their metrics.
        results: the same, ready for tables.
        missing: questions without an answer, by variant and split.
        left_out: samples that are not measured, by the task's code and split; see `Answers`.
    """

    answers: Mapping[Cell, Answered]
    scored: list[Scored]
    results: Results
    missing: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, Mapping[str, int]]


def measure(
    run: Run,
    answerers: Sequence[Answerer],
    splits: Collection[str],
    resamples: int,
    of_bits: Mapping[str, Mapping[str, Any]] | None = None,
) -> Measured | None:
    """Measure what models have answered; None where they have answered nothing.

    Args:
        run: holds `instructions` and `predictions`.
        answerers: the models.
        splits: of which every question should be answered.
        resamples: for intervals.
        of_bits: what the verdicts alone predict, for the tables; see `predictions_of_bits`.

    Raises:
        RunError: a table cannot be read.
    """
    found = read_answers(run, answerers, splits)
    for variant, lacking in sorted(found.missing.items()):
        for split, questions in sorted(lacking.items()):
            log.warning("%s has not answered %d questions of %s: run predict", variant, questions, split)
    if found.left_out:
        count = sum(sum(splits.values()) for splits in found.left_out.values())
        log.warning(
            "%d samples are not measured, for their true answer is none of their options or labels, such as %s;"
            " correct the source and run ingest again",
            count, found.example,
        )  # fmt: skip
    if not found.cells and not found.left_out:
        return None
    scored = [score(cell, answered, resamples) for cell, answered in found.cells.items()]
    results = Results(scored, _used(run), found.left_out, of_bits)
    return Measured(found.cells, scored, results, found.missing, found.left_out)


def write_results(run: Run, measured: Measured) -> None:
    """Write the metrics and the tables.

    Raises:
        RunError: the store refuses.
    """
    run.put(run.path(METRICS_PATH), json.dumps(metric_rows(measured.scored), indent=1, allow_nan=False).encode())
    tables = tables_of(measured.results)
    run.put(run.path(f"{TABLES_PATH}.md"), as_markdown(tables).encode())
    run.put(run.path(f"{TABLES_PATH}.tex"), as_latex(tables).encode())


def summary_of(measured: Measured) -> dict[str, Any]:
    """Return the mean primary metric of each variant, and by how much `caslie` exceeds the others, by model and split.

    Intervals are of 95%; means are over the tasks that a split has; in the released data
    seven in domain and five out of it.
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
                answers = sum(one.n for one in cells)
                means[variant] = {
                    **mean_of(cells)._asdict(),
                    "by_task": {one.task.code: one.primary.value for one in cells},
                    "tasks": len(cells),
                    "answers": answers,
                    "failed": sum(one.failed for one in cells),
                }
                mine, its = results.pair(model, "caslie", variant, split)
                if variant != "caslie" and mine:
                    gaps[variant] = difference(mine, its)._asdict()
            if means:
                found.setdefault(model, {})[split] = {"mean_primary": means, "caslie_exceeds": gaps}
    return found


def _used(run: Run) -> Used:
    """The share of captions that each variant uses: of those that `uia` does."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for table in ("instructions", EXPERIMENTS):
        rows = run.read(table, ["variant", "task", "split", "captions_used"])
        columns = (rows[name].to_pylist() for name in ("variant", "task", "split", "captions_used"))
        for variant, task, split, used in zip(*columns, strict=True):
            counts[variant, task, split] += used
    return {
        (variant, task, split): used / counts["uia", task, split]
        for (variant, task, split), used in counts.items()
        if counts["uia", task, split]
    }
