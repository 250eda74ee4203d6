"""Completion marker in the Parquet footer of `captions`: a finished partition is surveyed without reading its rows.

The survey and the counts of ten million views take seconds with it. The marker is valid for the lineup and the views
that it was written for.
"""

from __future__ import annotations

import json

import pyarrow as pa

from caslie_ray.captioning._counts import Counts
from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.run import Run

__all__ = ["completion_note", "read_completion"]

_KEY, _COUNTS = "caslie.settled", "caslie.counts"


def completion_note(run: Run, partition: str, lineup: ResolvedLineup, counts: Counts) -> dict[str, str]:
    """Return the footer's note for a partition in which nothing is missing and nothing is to be retried."""
    return {_KEY: _key(run, partition, lineup), _COUNTS: json.dumps(counts.as_json())}


def read_completion(run: Run, partition: str, lineup: ResolvedLineup) -> Counts | None:
    """Return the counts of a finished partition; None if it is not known to be finished."""
    files = run.files("captions", partition)
    if len(files) != 1 or run.stem(files[0]) != partition:
        return None
    try:
        note = run.note_of(files[0])
    except RunError:  # the survey then reads the file, and its error says what is wrong
        return None
    if _KEY not in note or note[_KEY] != _key(run, partition, lineup):
        return None
    return Counts.from_json(json.loads(note[_COUNTS]))


def _key(run: Run, partition: str, lineup: ResolvedLineup) -> str:
    """Return a hash of everything that the rows of a partition depend on."""
    views = run.read("views", ["view_id", "task", "given_caption"], partition).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, views.schema) as stream:
        stream.write_table(views)
    return content_id(lineup.key, sink.getvalue().to_pybytes())
