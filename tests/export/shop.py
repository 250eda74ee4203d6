"""Runs with the catalogue of a small shop, and exports of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from caslie_ray.export._export import export
from caslie_ray.export.options import ExportOptions
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS

__all__ = ["caption", "csv_rows", "exported", "image", "jsonl_rows", "product", "put_captions", "put_products", "shop"]

Row = dict[str, Any]


def image(place: int, view_id: str | None, context: str = "product", reason: str | None = None) -> Row:
    """An image of a product in a context."""
    return {
        "context": context,
        "place": place,
        "source": f"https://shop.example/{place}.jpg",
        "image_id": view_id and content_id(view_id),
        "view_id": view_id,
        "reason": reason,
    }


def product(product_id: str, *views: Row, gone: bool = False) -> Row:
    """A row of `products`."""
    return {"product_id": product_id, "texts": [], "views": list(views), "location": "shop.csv row 2", "gone": gone}


def caption(view_id: str, text: str | None, verdict: bool = True, error: str | None = None, **p_yes: Any) -> Row:
    """A row of `captions`; the votes are given as probabilities by voter, None for one that failed."""
    votes = [
        {"voter": name, "p_yes": p, "answer": None if p is None else "yes" if p > 0.5 else "no"}
        for name, p in p_yes.items()
    ]
    return {"view_id": view_id, "caption": text, "verdict": verdict, "error": error, "votes": votes}


def put_products(run: Run, rows: Iterable[Row], digits: int = 1) -> None:
    """Write `products`, partitioned by product id."""
    _put(run, "products", [(content_id(row["product_id"])[:digits], row) for row in rows])


def put_captions(run: Run, rows: Iterable[Row], digits: int = 1) -> None:
    """Write `captions`, partitioned by a hash of the view id."""
    _put(run, "captions", [(content_id(row["view_id"])[:digits] or "all", row) for row in rows])


def _put(run: Run, table: str, rows: Sequence[tuple[str, Row]]) -> None:
    by_partition: dict[str, list[Row]] = {}
    for partition, row in rows:
        by_partition.setdefault(partition, []).append(row)
    for partition, some in by_partition.items():
        run.write(table, partition, pa.Table.from_pylist(some, schema=SCHEMAS[table]))


def shop(run: Run, products: int = 40, caption_digits: int = 1, captioned: float = 1.0) -> None:
    """Write a catalogue: each product has two images in two contexts; captions of the second image lost.

    Args:
        run: the run.
        products: how many.
        caption_digits: the digits of partitions of `captions`.
        captioned: the share of products whose views are captioned.
    """
    names = [f"p{n:04}" for n in range(products)]
    contexts = ("alt_text", "product")
    put_products(
        run,
        [
            product(name, *(image(place, f"{name}-{one}-{place}", one) for one in contexts for place in (1, 2)))
            for name in names
        ],
    )
    put_captions(
        run,
        [
            caption(f"{name}-{one}-{place}", f"{one} {place} of {name}", place == 1, a=0.75, b=0.25)
            for name in names[: int(products * captioned)]
            for one in contexts
            for place in (1, 2)
        ],
        caption_digits,
    )


def exported(run: Run, to: Path | str, **options: Any) -> Row:
    """Export a run; return the summary."""
    return export(run, ExportOptions(str(to), **options), quiet=True)


def csv_rows(path: Path, **options: Any) -> list[dict[str, str]]:
    """Read a CSV file as another program does."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, **options))


def jsonl_rows(path: Path) -> list[Mapping[str, Any]]:
    """Read a file of JSON Lines."""
    return [json.loads(line) for line in path.read_bytes().decode().split("\n")[:-1]]
