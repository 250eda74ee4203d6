"""Looks up the samples of the report page on which variants differ, with their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from caslie_ray.evaluation._partitions import Partition, is_large, map_chunks, partitions_of
from caslie_ray.evaluation.answers.contrasts import Contrast
from caslie_ray.evaluation.report.lookup import rows_of
from caslie_ray.evaluation.report.shown import ShownAnswer, ShownSample
from caslie_ray.evaluation.report.text_limits import MAX_VIEWS
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS

__all__ = ["find_samples"]


def find_samples(run: Run, contrasts: Sequence[Contrast], model: str, variants: Sequence[str]) -> list[ShownSample]:
    """Return samples in a fixed random order.

    Args:
        run: the run.
        contrasts: the samples to return.
        model: the model whose answers are shown.
        variants: its variants, in the order of their answers.

    Raises:
        RunError: a table cannot be read.
    """
    partitions = partitions_of(run, ["samples"], ["instructions", "predictions"])
    large = is_large(run, partitions, "samples")
    named = {one.partition for one in contrasts}
    right = {one.sample_id: dict(one.difference.right) for one in contrasts}

    def read(chunk: Sequence[Partition]) -> list[ShownSample]:
        return _read_samples(run, chunk, model, variants, right)

    partitions = [partition for partition in partitions if partition.name in named]
    found = [sample for part in map_chunks(read, partitions, in_tasks=large) for sample in part.result]
    return sorted(found, key=lambda one: content_id(one.sample_id))


def _read_samples(
    run: Run,
    chunk: Sequence[Partition],
    model: str,
    variants: Sequence[str],
    right: Mapping[str, Mapping[str, bool]],
) -> list[ShownSample]:
    samples = rows_of(run, "samples", chunk, right, ["sample_id", "task", "split", "output", "view_ids"])
    prompts = {
        row["sample_id"]: row["prompt"]
        for row in rows_of(run, "instructions", chunk, right, ["sample_id", "variant", "prompt"])
        if row["variant"] == "text"
    }
    predictions = {
        (row["sample_id"], row["variant"]): row
        for row in rows_of(run, "predictions", chunk, right, ["sample_id", "model", "variant", "text", "answer"])
        if row["model"] == model
    }
    shown = []
    for row in samples:
        sample_id = row["sample_id"]
        answers = []
        for name in variants:
            predicted = predictions.get((sample_id, name))
            if predicted is not None and name in right[sample_id]:
                answers.append(ShownAnswer(name, predicted["text"], predicted["answer"], right[sample_id][name]))
        # The instruction, the first line, is the same for all samples of a task.
        text = prompts.get(sample_id, "").partition("\n")[2]
        views = tuple(view for view in row["view_ids"] or () if view)
        shown.append(
            ShownSample(
                sample_id,
                TASKS[row["task"]].code,
                row["split"],
                text,
                row["output"],
                tuple(answers),
                views[:MAX_VIEWS],
                len(views[MAX_VIEWS:]),
            )
        )
    return shown
