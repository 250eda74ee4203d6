"""What a model is trained on: the instructions of one variant and split, in an order that any run agrees on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
from caslie_ray.training._order import TrainingOrder

__all__ = ["Examples", "batch_at", "read_examples", "read_held_back", "share_of"]

_COLUMNS = ("sample_id", "task", "prompt", "prompt_fields", "prompt_captions", "response", "options")


@dataclass(frozen=True)
class Examples:
    """Instructions in the order of their sample ids.

    They are held as Arrow text, some 1 KiB each, by every worker; token ids are made when a step needs them.

    Attributes:
        rows: columns `sample_id`, `task`, `prompt`, `prompt_fields`, `response`, `options`, and `prompt_captions`
            where prompts have any.
        outside: ids of samples that were left out, for their answer is none of their options.
    """

    rows: pa.Table
    outside: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def prompt(self, index: int) -> Prompt:
        """Return what is asked."""
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
        """Return the true answer."""
        return str(self.rows["response"][index].as_py())

    def sample_id(self, index: int) -> str:
        """Return the id of the sample."""
        return str(self.rows["sample_id"][index].as_py())

    def options(self, index: int) -> list[str]:
        """Return what may be answered."""
        return list(self.rows["options"][index].as_py() or ())

    def task(self, index: int) -> str:
        """Return the full name of the sample's task."""
        return str(self.rows["task"][index].as_py())

    @cached_property
    def characters(self) -> npt.NDArray[np.int64]:
        """How long each prompt with its answer is: near enough to tokens for sharing work out."""
        lengths = pc.add(pc.utf8_length(self.rows["prompt"]), pc.utf8_length(self.rows["response"]))
        return np.asarray(lengths.to_numpy(), dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """A hash of all that a model could learn from them."""
        parts = (self.rows[name].to_pylist() for name in ("sample_id", "prompt", "response"))
        return content_id(*(content_id(*row) for row in zip(*parts, strict=True)))


def read_examples(
    run: Run, table: str, variant: str, split: str, tasks: Collection[str], at_most: int | None = None
) -> Examples:
    """Read the instructions of a variant and split.

    Args:
        run: the run.
        table: `instructions`, or the folder of an experiment's own.
        variant: the variant.
        split: the split.
        tasks: full names of the tasks; all of them where it is empty.
        at_most: so many of them at most, chosen by their ids.

    Raises:
        RunError: a file is not whole, or the store does not give it.
    """
    where = (pc.field("variant") == variant) & (pc.field("split") == split)
    if tasks:
        where &= pc.field("task").isin(sorted(tasks))
    parts = [run.read_file(path, [*_COLUMNS, "variant", "split"], where).select(_COLUMNS) for path in run.files(table)]
    if not parts:
        return Examples(pa.table({name: pa.array([], pa.string()) for name in _COLUMNS}))
    # The last file written has the word where two hold one sample.
    rows = pa.concat_tables(parts)
    last = {sample_id: row for row, sample_id in enumerate(rows["sample_id"].to_pylist())}
    outside = _outside(rows)
    chosen = [last[sample_id] for sample_id in sorted(last) if sample_id not in outside]
    # Ids are hashes: the first of them are a sample drawn evenly.
    return Examples(rows.take(pa.array(chosen[:at_most], pa.int64())).combine_chunks(), tuple(sorted(outside)))


def read_held_back(run: Run, order: TrainingOrder) -> Examples:
    """Read the samples that validations of an order are taken on.

    Raises:
        RunError: a file is not whole, or the store does not give it.
    """
    return read_examples(run, order.table, order.variant, "validation", order.tasks, order.settings.validation_samples)


def _outside(rows: pa.Table) -> set[str]:
    """Samples whose answer is none of their options: a model that learned it would be marked wrong for it."""
    columns = (rows[name].to_pylist() for name in ("sample_id", "task", "response", "options"))
    return {
        sample_id
        for sample_id, task, response, options in zip(*columns, strict=True)
        if TASKS[task].true_label(response, options or ()) is None
    }


def batch_at(step: int, count: int, batch: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the indices of the examples of an optimiser step: a function of these arguments and of nothing else.

    Each epoch sees every example once, in an order of its own. The last batch of an epoch holds what is left of it.

    Args:
        step: counted from 0 over all epochs.
        count: examples.
        batch: examples of a step.
        seed: of the order.
    """
    steps = -(-count // batch)
    epoch, place = divmod(step, steps)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return order[place * batch : (place + 1) * batch].astype(np.int64)


def share_of(
    indices: Sequence[int] | npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], rank: int, world: int
) -> list[int]:
    """Return the part of a batch that one worker takes: each worker has as many, and about as long ones, as any other.

    Args:
        indices: the examples of the step.
        lengths: how long each example of the set is.
        rank: which worker, from 0.
        world: how many workers there are.
    """
    longest_first = sorted((int(index) for index in indices), key=lambda index: (-int(lengths[index]), index))
    # There and back again, so that nobody always has the longer one of a pair.
    return [
        index
        for place, index in enumerate(longest_first)
        if rank == (place % world if (place // world) % 2 == 0 else world - 1 - place % world)
    ]
