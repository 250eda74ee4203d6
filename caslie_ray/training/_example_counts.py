"""Number and hash of a model's examples, without holding them: the driver gets counts from tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caslie_ray.cluster.distribution import is_large
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import Run
from caslie_ray.training._examples import examples_filter, lack_label, row_digests
from caslie_ray.training._spec import TrainingSpec

__all__ = ["ExampleCounts", "count_examples"]

_COLUMNS = ["sample_id", "task", "prompt", "response", "options", "variant", "split"]
_NAMED = 3


class ExampleCounts(NamedTuple):
    """What the driver knows of the examples of a model.

    Attributes:
        total: examples in the split train.
        outside: samples that are left out, because their answer is none of their options.
        named: ids of the first of these.
        train_digest: a hash of the examples in the split train; see `Examples.digest`.
        digest: a hash of these and of the validation samples: all that the model depends on.
    """

    total: int
    outside: int
    named: tuple[str, ...]
    train_digest: str
    digest: str


def count_examples(run: Run, specs: Sequence[TrainingSpec]) -> list[ExampleCounts]:
    """Count the examples of models, in order; of a large run in one Ray task per model.

    Raises:
        RunError: a file is damaged, or the store does not answer.
    """
    tables = {spec.table for spec in specs}
    large = any(is_large(run, run.files(table)) for table in tables)

    def count(item: tuple[int, TrainingSpec]) -> tuple[int, ExampleCounts]:
        return item[0], _count(run, item[1])

    found = dict(map_partitions(count, list(enumerate(specs)), distributed=large))
    return [found[number] for number in range(len(specs))]


class _Rows(NamedTuple):
    """Ids and hashes of rows: about a hundred bytes per row."""

    ids: npt.NDArray[np.bytes_]
    digests: npt.NDArray[np.bytes_]
    outside: npt.NDArray[np.bool_]


def _count(run: Run, spec: TrainingSpec) -> ExampleCounts:
    train = _latest(list(_rows(run, spec, "train")))
    held_back = _latest(list(_rows(run, spec, "validation")))
    train_digest = _digest(train, None)
    outside = [name.decode() for name in train.ids[train.outside].tolist()]
    return ExampleCounts(
        int((~train.outside).sum()), len(outside), tuple(outside[:_NAMED]), train_digest,
        content_id(train_digest, _digest(held_back, spec.settings.validation_samples)),
    )  # fmt: skip


def _rows(run: Run, spec: TrainingSpec, split: str) -> Iterator[_Rows]:
    """Read one file after the other, oldest first."""
    where = examples_filter(spec.variant, split, spec.tasks)
    for path in run.files(spec.table):
        rows: pa.Table = run.read_file(path, _COLUMNS, where)
        yield _Rows(
            np.array([name.encode() for name in rows["sample_id"].to_pylist()], dtype=np.bytes_),
            np.array([digest.encode() for digest in row_digests(rows)], dtype=np.bytes_),
            np.array(lack_label(rows), dtype=np.bool_),
        )


def _latest(parts: Sequence[_Rows]) -> _Rows:
    """Sort rows by id; if two have one id, the later one wins."""
    if not parts:
        return _Rows(np.array([], np.bytes_), np.array([], np.bytes_), np.array([], np.bool_))
    ids, digests, outside = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    last = np.append(ids[1:] != ids[:-1], True)[: len(ids)]
    return _Rows(ids[last], digests[order][last], outside[order][last])


def _digest(rows: _Rows, at_most: int | None) -> str:
    kept = rows.digests[~rows.outside][:at_most]
    return content_id(*(digest.decode() for digest in kept.tolist()))
