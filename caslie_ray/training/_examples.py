"""Training examples: the instructions of one variant and split, in the order of their sample ids."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.hashing import content_id
from caslie_ray.prompts import Prompt, Span, read_spans
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS
from caslie_ray.training._spec import TrainingSpec

__all__ = ["Examples", "examples_filter", "lack_label", "read_examples", "read_held_back", "row_digests"]

_COLUMNS = ("sample_id", "task", "prompt", "prompt_fields", "prompt_captions", "response", "options")


@dataclass(frozen=True)
class Examples:
    """Instructions in the order of their sample ids.

    Every worker holds all of them as Arrow text, about 1 KiB each; token ids are made when a step needs them.

    Attributes:
        rows: columns `sample_id`, `task`, `prompt`, `prompt_fields`, `response`, `options`, and `prompt_captions`
            if any prompt has captions.
    """

    rows: pa.Table

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def prompt(self, index: int) -> Prompt:
        """Return the prompt of an example."""
        return Prompt(
            self.rows["prompt"][index].as_py(),
            self._spans("prompt_fields", index),
            self._spans("prompt_captions", index),
        )

    def _spans(self, column: str, index: int) -> tuple[Span, ...]:
        if column not in self.rows.column_names:
            return ()
        return read_spans(self.rows[column][index].as_py())

    def response(self, index: int) -> str:
        """Return the true answer of an example."""
        return str(self.rows["response"][index].as_py())

    def sample_id(self, index: int) -> str:
        """Return the sample id of an example."""
        return str(self.rows["sample_id"][index].as_py())

    def options(self, index: int) -> list[str]:
        """Return the options of an example."""
        return list(self.rows["options"][index].as_py() or ())

    def task(self, index: int) -> str:
        """Return the full name of an example's task."""
        return str(self.rows["task"][index].as_py())

    @cached_property
    def characters(self) -> npt.NDArray[np.int64]:
        """Characters of each prompt with its answer: a proxy for tokens, to balance work."""
        lengths = pc.add(pc.utf8_length(self.rows["prompt"]), pc.utf8_length(self.rows["response"]))
        return np.asarray(lengths.to_numpy(), dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """A hash of everything that a model can learn from them."""
        return content_id(*row_digests(self.rows))


def read_examples(
    run: Run, table: str, variant: str, split: str, tasks: Collection[str], at_most: int | None = None
) -> Examples:
    """Read the instructions of a variant and split.

    Samples whose answer is none of their options are left out: a model that learned it would be marked wrong.

    Args:
        run: the run.
        table: `instructions`, or the table of experiments.
        variant: the variant.
        split: the split.
        tasks: full names of the tasks; empty for all.
        at_most: maximum number of examples, chosen by their ids.

    Raises:
        RunError: a file is damaged, or the store does not answer.
    """
    where = examples_filter(variant, split, tasks)
    parts = [run.read_file(path, [*_COLUMNS, "variant", "split"], where).select(_COLUMNS) for path in run.files(table)]
    if not parts:
        return Examples(pa.table({name: pa.array([], pa.string()) for name in _COLUMNS}))
    # If two files hold one sample, the newest wins.
    rows = pa.concat_tables(parts)
    last = {sample_id: row for row, sample_id in enumerate(rows["sample_id"].to_pylist())}
    outside = lack_label(rows)
    chosen = [row for _, row in sorted(last.items()) if not outside[row]]
    # Ids are hashes, so the first of them are a uniform sample.
    return Examples(rows.take(pa.array(chosen[:at_most], pa.int64())).combine_chunks())


def read_held_back(run: Run, spec: TrainingSpec) -> Examples:
    """Read the validation samples of a model.

    Raises:
        RunError: a file is damaged, or the store does not answer.
    """
    return read_examples(run, spec.table, spec.variant, "validation", spec.tasks, spec.settings.validation_samples)


def examples_filter(variant: str, split: str, tasks: Collection[str]) -> pc.Expression:
    """Return the filter that selects the instructions of a variant and split; no tasks means all."""
    where = (pc.field("variant") == variant) & (pc.field("split") == split)
    return where & pc.field("task").isin(sorted(tasks)) if tasks else where


def lack_label(rows: pa.Table) -> list[bool]:
    """Return for each instruction whether its answer is none of its options or labels."""
    columns = (rows[name].to_pylist() for name in ("task", "response", "options"))
    return [
        TASKS[task].true_label(response, options or ()) is None
        for task, response, options in zip(*columns, strict=True)
    ]


def row_digests(rows: pa.Table) -> list[str]:
    """Return a hash of each instruction, by what a model can learn from it."""
    columns = (rows[name].to_pylist() for name in ("sample_id", "prompt", "response"))
    return [content_id(*row) for row in zip(*columns, strict=True)]
