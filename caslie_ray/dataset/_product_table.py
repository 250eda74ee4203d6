"""The rows of `products`: each id once, and products of earlier exports marked as gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from caslie_ray.dataset._intermediate import fold
from caslie_ray.storage.schemas import SCHEMAS

__all__ = ["Products", "image_reject", "product_rows"]

Row = dict[str, Any]


class Products(NamedTuple):
    """The products of one partition.

    Attributes:
        rows: rows of the table `products`, by id.
        rejects: products with the id of another one, and images that were lost.
        counts: products, and what was found of them, under the names of `Written.counts`.
    """

    rows: pa.Table
    rejects: list[Row]
    counts: Counter[tuple[str, ...]]


def product_rows(found: Iterable[Row], earlier: Iterable[Row]) -> Products:
    """Return the products of a partition.

    Args:
        found: sorted rows of this job's sources.
        earlier: rows of the table as an earlier job wrote it. Those that the sources have no more are kept as gone.
    """
    kept: dict[str, Row] = {}
    rejects: list[Row] = []
    counts: Counter[tuple[str, ...]] = Counter()
    for row in sorted(found, key=lambda row: row["order"]):
        first = kept.setdefault(row["product_id"], row)
        if row is first:
            counts["products",] += 1
            counts["imageless",] += not row["views"]
            counts["positions",] += len(row["views"])
            counts["lost",] += sum(view["view_id"] is None for view in row["views"])
            rejects += [image_reject(row, lost, row["product_id"]) for lost in row["lost"]]
        elif (row["texts"], row["views"]) == (first["texts"], first["views"]):
            counts["repeats",] += 1
        else:
            rejects.append(_second(row, first))
    for row in earlier:
        if row["product_id"] not in kept:
            kept[row["product_id"]] = row | {"gone": True}
            counts["gone",] += 1
    names = SCHEMAS["products"].names
    rows = [
        {name: row.get(name) for name in names} | {"gone": bool(row.get("gone"))} for _, row in sorted(kept.items())
    ]
    return Products(fold(rows, SCHEMAS["products"]), rejects, counts)


def image_reject(row: Row, lost: Row, source_id: str | None) -> Row:
    """Return the row of `rejects` of an image that could not be used.

    Args:
        row: its sample or product.
        lost: the reference and the reason.
        source_id: the id of the row in its source.
    """
    known = {name: row.get(name) for name in ("sample_id", "location", "order")}
    return known | lost | {"kind": "image", "source_id": source_id}


def _second(row: Row, first: Row) -> Row:
    return {
        "kind": "sample",
        "source": row["location"],
        "reason": f"a product id twice: {first['location']} has {row['product_id']!r} too, with other texts or images,"
        " and is kept; give each product its own id",
        "retryable": False,
        "location": row["location"],
        "source_id": row["product_id"],
        "order": row["order"],
    }
