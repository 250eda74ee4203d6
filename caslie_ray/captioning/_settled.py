"""What a finished partition says of itself in the footer of its file, so that its rows need not be read again.

A run of ten million views is surveyed and counted in seconds by this. The note stands in the very file that it
speaks of, and names the lineup and the views that it holds for: with others it says nothing.
"""

from __future__ import annotations

import json

import pyarrow as pa

from caslie_ray.captioning._summary import Counts
from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.run import Run

__all__ = ["settled", "settled_note"]

_KEY, _COUNTS = "caslie.settled", "caslie.counts"


def settled(run: Run, partition: str, lineup: ResolvedLineup) -> Counts | None:
    """Return the counts of a partition in which nothing is left to do or to ask again; None where that is not known."""
    files = run.files("captions", partition)
    if len(files) != 1 or run.stem(files[0]) != partition:
        return None
    try:
        note = run.note_of(files[0])
    except RunError:  # the survey, which reads it, says what is wrong with it
        return None
    if _KEY not in note or note[_KEY] != _key(run, partition, lineup):
        return None
    return Counts.from_json(json.loads(note[_COUNTS]))


def settled_note(run: Run, partition: str, lineup: ResolvedLineup, counts: Counts) -> dict[str, str]:
    """Return the note for a partition in which nothing is left to do or to ask again."""
    return {_KEY: _key(run, partition, lineup), _COUNTS: json.dumps(counts.as_json())}


def _key(run: Run, partition: str, lineup: ResolvedLineup) -> str:
    """Return a hash of all that the rows of a partition depend on."""
    views = run.read("views", ["view_id", "task", "given_caption"], partition).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, views.schema) as stream:
        stream.write_table(views)
    return content_id(lineup.key, sink.getvalue().to_pybytes())
