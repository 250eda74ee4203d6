"""Completion marker in the Parquet footer of `predictions`: a finished partition is surveyed without reading its rows.

The marker is valid for the files of instructions, the models and the splits that it was written for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from caslie_ray.errors import RunError, StoreError
from caslie_ray.hashing import content_id
from caslie_ray.prediction._answerers import Answerer
from caslie_ray.prediction._known_answers import PREDICTIONS
from caslie_ray.storage.run import Run

__all__ = ["completion_note", "read_completion"]

_KEY, _COUNTS = "caslie.predicted", "caslie.counts"


def completion_note(
    run: Run,
    partition: str,
    answerers: Sequence[Answerer],
    splits: Sequence[str],
    counts: Mapping[str, Mapping[str, int]],
) -> dict[str, str]:
    """Return the footer's note for a partition in which every question is answered and none is retried.

    Raises:
        StoreError: the store does not answer.
    """
    return {_KEY: _key(run, partition, answerers, splits), _COUNTS: json.dumps(counts)}


def read_completion(
    run: Run, partition: str, answerers: Sequence[Answerer], splits: Sequence[str]
) -> dict[str, Counter[str]] | None:
    """Return the counts of a finished partition by variant; None if it is not known to be finished.

    Raises:
        StoreError: the store does not answer.
    """
    files = run.files(PREDICTIONS, partition)
    if len(files) != 1 or run.stem(files[0]) != partition:
        return None
    try:
        note = run.note_of(files[0])
    except StoreError:
        raise
    except RunError:  # a damaged file is not finished
        return None
    if note.get(_KEY) != _key(run, partition, answerers, splits):
        return None
    return {variant: Counter(counts) for variant, counts in json.loads(note[_COUNTS]).items()}


def _key(run: Run, partition: str, answerers: Sequence[Answerer], splits: Sequence[str]) -> str:
    """Return a hash of what the questions of a partition depend on, with sizes and times of the instruction files."""
    tables = sorted({answerer.table for answerer in answerers})
    paths = [path for table in tables for path in run.files(table, partition)]
    files = [f"{info.path.removeprefix(run.root)} {info.size} {info.mtime_ns}" for info in run.info(paths)]
    return content_id(*sorted(repr(answerer) for answerer in answerers), repr(sorted(splits)), *files)
