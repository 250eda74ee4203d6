"""The join of captions with the products that have their views, on the view id.

Captions are partitioned by image, products by product id, and a view may belong to any products. So both sides are
sent to the bucket of the view id, joined there, and sent on to the group of products that asks. Each step writes one
shuffle file per task.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.export._captions import CAPTIONED, COLUMNS, captions_of
from caslie_ray.export._products import Selection, views_of
from caslie_ray.export._workspace import Part, Workspace
from caslie_ray.storage.latest_rows import latest_rows
from caslie_ray.storage.shuffle import buckets_of, read_buckets, read_senders, write_buckets

__all__ = ["join_bucket", "read_joined", "send_captions", "send_requests"]

_REQUESTS = pa.schema([("view_id", pa.string())])


def send_captions(space: Workspace, group: int, files: Sequence[str]) -> None:
    """Send the captions of some files to the buckets of their views.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    rows = captions_of(pa.concat_tables([space.run.read_file(path, COLUMNS) for path in files]))
    _send(space, space.captions(group), rows)


def send_requests(space: Workspace, group: int, parts: Sequence[Part], selection: Selection) -> None:
    """Send the views of some partitions of products to their buckets, each once.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    views = [_REQUESTS.empty_table()]
    views += [views_of(space.run, part, selection).rows.select(["view_id"]) for part in parts]
    ids = pc.unique(pa.concat_tables(views)["view_id"]).drop_null()
    _send(space, space.requests(group), pa.table([ids], schema=_REQUESTS))


def join_bucket(space: Workspace, bucket: int) -> None:
    """Send the captions of a bucket's views on to the groups of products that ask for them.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    run = space.run
    sent = [space.requests(group) for group in range(space.product_groups)]
    requests, groups = read_senders(run, sent, bucket, _REQUESTS)
    ids = requests["view_id"].combine_chunks()
    # In the order of writing: of two rows of one view the later one counts.
    paths = [space.captions(group) for group in range(space.caption_groups)]
    rows = latest_rows(read_buckets(run, paths, bucket, CAPTIONED), ["view_id"])
    place = pc.index_in(ids, value_set=rows["view_id"].combine_chunks())
    known = pc.is_valid(place).to_numpy(zero_copy_only=False)
    write_buckets(run, space.joined(bucket), rows.take(place.drop_null()), groups[known], space.product_groups)


def read_joined(space: Workspace, group: int) -> pa.Table:
    """Return the captions of the views of a group of products, each once.

    Raises:
        RunError: a file cannot be read.
    """
    return read_buckets(space.run, [space.joined(bucket) for bucket in range(space.buckets)], group, CAPTIONED)


def _send(space: Workspace, path: str, rows: pa.Table) -> None:
    write_buckets(space.run, path, rows, buckets_of(rows["view_id"].to_pylist(), space.buckets), space.buckets)
