"""Samples that one variant of a model answers rightly and another wrongly, with their pictures, captions and votes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.evaluation._bounds import MOST_VIEWS, bounded
from caslie_ray.evaluation._collect import shown_view, splits_of
from caslie_ray.evaluation._results import Measured
from caslie_ray.evaluation._truth import KnownView
from caslie_ray.evaluation.page import ShownAnswer, ShownSample, ShownView
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS

__all__ = ["contrasts_of", "views_of"]

_SPLITS = ("ind", "ood")


def contrasts_of(run: Run, measured: Measured, at_most: int) -> list[ShownSample]:
    """Return samples on which variants of the first model differ, evenly over tasks, splits and kinds of difference.

    Args:
        run: the run.
        measured: its answers.
        at_most: so many samples.

    Raises:
        RunError: a table cannot be read.
    """
    if not measured.results.models:
        return []
    model = measured.results.models[0]
    chosen = _chosen(measured, model, at_most)
    return _shown(run, model, measured.results.variants, chosen) if chosen else []


def _chosen(measured: Measured, model: str, at_most: int) -> dict[str, dict[str, bool]]:
    """Sample ids with what each variant made of them: right or wrong."""
    marks: dict[tuple[str, str], dict[str, dict[str, bool]]] = defaultdict(lambda: defaultdict(dict))
    for cell, answered in measured.answers.items():
        if cell.model == model and cell.split in _SPLITS:
            for sample, right in zip(answered.samples, answered.right, strict=True):
                marks[cell.task, cell.split][sample][cell.variant] = right
    groups: dict[tuple[Any, ...], list[tuple[str, dict[str, bool]]]] = defaultdict(list)
    for place, samples in marks.items():
        for sample, found in samples.items():
            if len(set(found.values())) > 1:
                groups[place, tuple(sorted(found.items()))].append((sample, found))
    # By hash: which of a group is shown is chance, and the same in every evaluation.
    queues = [sorted(group, key=lambda one: content_id(one[0]), reverse=True) for _, group in sorted(groups.items())]
    chosen: dict[str, dict[str, bool]] = {}
    while queues and len(chosen) < at_most:
        for queue in queues:
            if queue and len(chosen) < at_most:
                chosen.update([queue.pop()])
        queues = [queue for queue in queues if queue]
    return chosen


def _shown(
    run: Run, model: str, variants: Sequence[str], chosen: Mapping[str, Mapping[str, bool]]
) -> list[ShownSample]:
    ids = list(chosen)
    samples = _rows(run, "samples", ["sample_id", "task", "split", "output", "view_ids"], ids)
    prompts = {
        row["sample_id"]: row["prompt"]
        for row in _rows(run, "instructions", ["sample_id", "variant", "prompt"], ids)
        if row["variant"] == "text"
    }
    said = {
        (row["sample_id"], row["variant"]): row
        for row in _rows(run, "predictions", ["sample_id", "model", "variant", "text", "answer"], ids)
        if row["model"] == model
    }
    shown: dict[str, ShownSample] = {}
    for row in samples:
        sample_id = row["sample_id"]
        answers = tuple(
            ShownAnswer(name, said[sample_id, name]["text"], said[sample_id, name]["answer"], chosen[sample_id][name])
            for name in variants
            if name in chosen[sample_id] and (sample_id, name) in said
        )
        # The instruction is the same for all samples of a task: what follows it tells them apart.
        text = prompts.get(sample_id, "").partition("\n")[2]
        views = tuple(view for view in row["view_ids"] or () if view)
        shown[sample_id] = ShownSample(
            sample_id, TASKS[row["task"]].code, row["split"], text, row["output"], answers, views[:MOST_VIEWS],
            len(views[MOST_VIEWS:]),
        )  # fmt: skip
    return sorted(shown.values(), key=lambda one: content_id(one.sample_id))


def views_of(run: Run, view_ids: Collection[str], truth: Mapping[str, KnownView] | None) -> list[ShownView]:
    """Return some views as the page shows them."""
    captions = {row["view_id"]: row for row in _rows(run, "captions", None, view_ids)}
    splits = splits_of(run, view_ids)
    return [
        shown_view(row, captions[row["view_id"]], (truth or {}).get(row["view_id"]), splits.get(row["view_id"], ()))
        for row in _rows(run, "views", ["view_id", "image_id", "task", "caption_prompt"], view_ids)
        if row["view_id"] in captions
    ]


def _rows(run: Run, table: str, columns: list[str] | None, ids: Collection[str]) -> list[dict[str, Any]]:
    """The rows of a table with some ids, each once; their texts are cut as the page shows them."""
    name = "view_id" if table in ("captions", "views") else "sample_id"
    wanted = pa.array(sorted(ids), pa.string())
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in run.files(table):
        for row in bounded(run.read_file(path, columns, pc.field(name).isin(wanted))).to_pylist():
            found[row[name], row.get("variant"), row.get("model")] = row
    return list(found.values())
