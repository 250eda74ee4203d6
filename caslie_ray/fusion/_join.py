"""The join of captions with the samples that ask for them, on the view id.

Captions are partitioned by image, samples by sample id, and a view may be asked for by any sample. So both sides are
sent to the bucket of the view id, joined there, and sent on to the group of samples that asks. Each step writes one
shuffle file per task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.fusion._draws import write_draws
from caslie_ray.fusion._workspace import Part, Workspace
from caslie_ray.storage.latest_rows import latest_rows
from caslie_ray.storage.shuffle import buckets_of, read_buckets, read_senders, write_buckets

__all__ = ["JOINED", "caption_columns", "join_bucket", "send_captions", "send_requests"]

_ANSWERS = pa.list_(pa.struct([("voter", pa.string()), ("answer", pa.string())]))

_CAPTIONS = pa.schema(
    [("view_id", pa.string()), ("caption", pa.string()), ("verdict", pa.bool_()), ("answers", _ANSWERS)]
)

_REQUESTS = pa.schema(
    [("view_id", pa.string()), ("sample_id", pa.string()), ("task", pa.string()), ("split", pa.string())]
)

JOINED = pa.schema(
    [
        ("view_id", pa.string()),
        ("task", pa.string()),
        ("split", pa.string()),
        ("draw", pa.uint64()),
        ("known", pa.bool_()),
        *(_CAPTIONS.field(name) for name in ("caption", "verdict", "answers")),
        ("free_known", pa.bool_()),
        ("free_caption", pa.string()),
        ("free_verdict", pa.bool_()),
    ]
)
"""A view that a group of samples asks for and that has a caption row, with or without context. `task` and `split` are
those that it is drawn in."""


def caption_columns(*, answers: bool) -> list[str]:
    """Return the columns of `captions` that a fusion reads."""
    return ["view_id", "caption", "verdict", *(["votes"] if answers else [])]


def send_captions(space: Workspace, context_free: bool, group: int, files: Sequence[str]) -> None:
    """Send the captions of some files to the buckets of their views.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    run = space.source(context_free)
    answers = space.answers and not context_free
    parts = [run.read_file(path, caption_columns(answers=answers)) for path in files]
    rows = captions_of(pa.concat_tables(parts))
    write_buckets(
        space.run, space.captions(context_free, group), rows,
        buckets_of(rows["view_id"].to_pylist(), space.buckets), space.buckets,
    )  # fmt: skip


def captions_of(rows: pa.Table) -> pa.Table:
    """Return rows of the table `captions` with what a fusion needs of them."""
    rows = rows.combine_chunks()
    if "votes" in rows.column_names and rows.num_rows:
        votes = rows["votes"].chunk(0)
        lengths = pc.fill_null(pc.list_value_length(votes), 0).to_numpy()
        flat = pc.list_flatten(votes)
        named = [pc.struct_field(flat, name) for name in ("voter", "answer")]
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        answers = pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(named, ["voter", "answer"]))
    else:
        answers = pa.nulls(rows.num_rows, _ANSWERS)
    return rows.select(["view_id", "caption", "verdict"]).append_column("answers", answers).cast(_CAPTIONS)


def send_requests(space: Workspace, group: int, parts: Sequence[Part]) -> None:
    """Send the views that some partitions of samples ask for to their buckets, each once, for its first sample.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    tables = [_REQUESTS.empty_table()]
    for part in parts:
        run = space.run.with_file_listing(part.files)
        rows = run.read("samples", ["sample_id", "task", "split", "view_ids", "output"], part.name)
        rows = rows.filter(pc.field("output") != "").combine_chunks()
        if not rows.num_rows:
            continue
        views = rows["view_ids"].chunk(0)
        asked = rows.select(["sample_id", "task", "split"]).take(pc.list_parent_indices(views))
        asked = asked.add_column(0, "view_id", pc.list_flatten(views))
        tables.append(asked.filter(pc.greater(pc.binary_length(asked["view_id"]), 0)))
    rows = _first_of_each(pa.concat_tables(tables))
    write_buckets(
        space.run, space.requests(group), rows, buckets_of(rows["view_id"].to_pylist(), space.buckets), space.buckets
    )


def join_bucket(space: Workspace, bucket: int) -> None:
    """Send the captions of a bucket's views on to the groups of samples that ask for them; write lots if any are drawn.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    run = space.run
    sent = [space.requests(group) for group in range(space.sample_groups)]
    requests, groups = read_senders(run, sent, bucket, _REQUESTS)
    ids = requests["view_id"].combine_chunks()
    first = _first_of_each(requests)
    place = pc.index_in(ids, value_set=first["view_id"].combine_chunks())
    columns = {
        "view_id": ids, "task": first["task"].take(place), "split": first["split"].take(place),
        "draw": pa.nulls(len(ids), pa.uint64()), **_found(space, bucket, ids, context_free=False),
        **{f"free_{name}": column for name, column in _found(space, bucket, ids, context_free=True).items()},
    }  # fmt: skip
    rows = pa.table({name: columns[name] for name in JOINED.names}).cast(JOINED)
    if space.shuffled:
        rows = write_draws(space, bucket, rows)
    known = pc.or_(rows["known"], rows["free_known"])
    rows = rows.filter(known)
    groups = groups[known.to_numpy()]
    write_buckets(run, space.joined(bucket), rows, groups, space.sample_groups)


def _found(space: Workspace, bucket: int, ids: pa.Array, *, context_free: bool) -> dict[str, pa.ChunkedArray]:
    """Return the columns of the captions of some views; where two rows have one view, those of the newest file."""
    paths = [space.captions(context_free, group) for group in range(space.caption_groups[context_free])]
    rows = latest_rows(read_buckets(space.run, paths, bucket, _CAPTIONS), ["view_id"])
    place = pc.index_in(ids, value_set=rows["view_id"].combine_chunks())
    columns = {name: rows[name].take(place) for name in ("caption", "verdict", "answers")}
    return {"known": pc.is_valid(place), **columns}


def _first_of_each(requests: pa.Table) -> pa.Table:
    """Keep the request of each view that has the lowest sample id."""
    return latest_rows(requests.sort_by([("sample_id", "descending")]), ["view_id"])
