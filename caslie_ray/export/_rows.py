"""The exported rows: views of products with their captions."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.export._captions import PROBABILITIES
from caslie_ray.export._counts import Counts
from caslie_ray.export._products import Views

__all__ = ["ROWS", "Exported", "exported"]

ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("context", pa.string()),
        ("image", pa.string()),
        ("place", pa.int32()),
        ("caption", pa.string()),
        ("verdict", pa.bool_()),
        ("yes_share", pa.float64()),
        ("probabilities", PROBABILITIES),
        ("error", pa.string()),
    ]
)
"""One product, context and image. Texts are empty where there is none; the other columns are null."""

_GONE = "no longer in the catalogue"
_NO_IMAGE = "the product has no image"
_NO_REASON = "the image could not be used"
_MISSING = "not captioned yet: run caption"


class Exported(NamedTuple):
    """Rows of `ROWS`, and the counts of all views that they were chosen from."""

    rows: pa.Table
    counts: Counts


def exported(views: Views, captions: pa.Table, *, every: bool) -> Exported:
    """Return the views of products with their captions, in the same order.

    Args:
        views: of some products.
        captions: rows of `CAPTIONED`, each view once.
        every: all of them; otherwise only captions that won.
    """
    rows = views.rows
    place = pc.index_in(rows["view_id"].combine_chunks(), value_set=captions["view_id"].combine_chunks())
    found = captions.take(place)
    known, has_view = pc.is_valid(place), pc.is_valid(rows["view_id"])
    gone, imageless = rows["gone"], rows["imageless"]
    conditions = [gone, imageless, pc.invert(has_view), pc.invert(known)]
    reasons = [_GONE, _NO_IMAGE, pc.fill_null(rows["reason"], _NO_REASON), _MISSING, pc.fill_null(found["error"], "")]
    columns = [
        rows["product_id"],
        pc.fill_null(rows["context"], ""),
        pc.fill_null(rows["source"], ""),
        rows["place"],
        pc.fill_null(found["caption"], ""),
        found["verdict"],
        found["yes_share"],
        found["probabilities"],
        pc.case_when(pc.make_struct(*map(_whole, conditions)), *reasons),
    ]
    all_rows = pa.table(columns, schema=ROWS)
    counted = pc.invert(pc.or_(gone, imageless))
    captioned = pc.and_(pc.not_equal(all_rows["caption"], ""), counted)
    won = pc.and_(pc.fill_null(found["verdict"], False), captioned)
    lost = pc.and_(pc.invert(pc.fill_null(found["verdict"], True)), counted)
    missing = pc.and_(pc.and_(has_view, pc.invert(known)), counted)
    views_won, views_lost, views_missing = _true(won), _true(lost), _true(missing)
    counts = Counts(
        products=views.products,
        gone=views.gone,
        without_image=_true(pc.and_(imageless, pc.invert(gone))),
        won=views_won,
        lost=views_lost,
        failed=_true(counted) - views_won - views_lost - views_missing,
        missing=views_missing,
    )
    chosen = all_rows if every else all_rows.filter(won)
    # Parquet's pages depend on how columns are cut, which depends on the files that were joined.
    return Exported(chosen.combine_chunks(), counts)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`make_struct` takes columns that are cut alike."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _true(column: pa.Array | pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)
