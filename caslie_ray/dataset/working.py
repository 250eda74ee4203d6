"""Working files of `ingest`, below ``RUN/ingest/``; none of them is a table of the run.

``parsed/<source>/``   the rows of one source file, read and prompted; kept while the file is unchanged
``fetched/``           the ledger of references: image_id or reason; never asks for the same thing twice
``pending/``           images that were fetched and are not in the table yet
``sorted/``            rows on their way into the tables, sorted by partition
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS, SPANS

__all__ = ["FETCHED", "FOLDER", "LOST", "PARSED", "SORTED", "fold", "read_range", "write_sorted"]

FOLDER = "ingest"

_LISTS = pa.list_(pa.string())
_SAMPLE = [
    SCHEMAS["samples"].field(name) for name in SCHEMAS["samples"].names if name not in ("view_ids", "source_ids")
]

PARSED = pa.schema(
    [
        ("number", pa.int64()),
        ("location", pa.string()),
        ("reason", pa.string()),
        ("source_id", pa.string()),
        ("notes", _LISTS),
        *_SAMPLE,
        ("locators", _LISTS),
        ("sources", _LISTS),
        ("caption_prompts", _LISTS),
        ("quality_prompts", _LISTS),
        ("caption_fields", pa.list_(SPANS)),
        ("quality_fields", pa.list_(SPANS)),
    ]
)
"""A row of a source: a sample with its references and prompts, one an image, or a reason; `notes` as in `Sample`."""

FETCHED = pa.schema(
    [
        ("key", pa.string()),
        ("settings", pa.string()),
        ("image_id", pa.string()),
        ("reason", pa.string()),
        ("retryable", pa.bool_()),
    ]
)
"""What became of a reference: an image, or a reason."""

LOST = pa.list_(
    pa.struct([("source", pa.string()), ("reason", pa.string()), ("retryable", pa.bool_())]),
)
"""The references of one sample that gave no image."""

SORTED: dict[str, pa.Schema] = {
    "images": SCHEMAS["images"],
    "views": SCHEMAS["views"].append(pa.field("order", pa.int64())),
    "samples": pa.schema(
        [
            *SCHEMAS["samples"],
            pa.field("order", pa.int64()),
            pa.field("rank", pa.int32()),
            pa.field("location", pa.string()),
            pa.field("lost", LOST),
        ]
    ),
    "rejects": pa.schema(
        [
            ("key", pa.string()),
            ("order", pa.int64()),
            ("location", pa.string()),
            ("reason", pa.string()),
            ("source_id", pa.string()),
        ]
    ),
}
"""Rows on their way into the tables; `order` is their place in the sources."""

_KEY = {"images": "image_id", "views": "image_id", "samples": "sample_id", "rejects": "key"}
_GROUP = {"images": 32, "views": 256, "samples": 256, "rejects": 1024}


def write_sorted(run: Run, folder: str, stem: str, kind: str, rows: pa.Table) -> str | None:
    """Write rows of one of `SORTED` so that `read_range` can take a partition out of them cheaply.

    Returns:
        The path; None where there are no rows and so no file.
    """
    if not rows.num_rows:
        return None
    key = _KEY[kind]
    rows = rows.select(SORTED[kind].names).cast(SORTED[kind]).sort_by(key)
    sink = pa.BufferOutputStream()
    codec = "none" if kind == "images" else "zstd"
    pq.write_table(rows, sink, compression=codec, row_group_size=_GROUP[kind], write_statistics=[key])
    path = run.table_path(f"{FOLDER}/{folder}", stem)
    run.put(path, sink.getvalue())
    return path


def read_range(run: Run, paths: Sequence[str], kind: str, partition: str) -> pa.Table:
    """Return the rows of `paths` whose key starts with `partition`.

    Raises:
        DamagedFile: a file is damaged.
    """
    if not paths:
        return SORTED[kind].empty_table()
    key = pc.field(_KEY[kind])
    # "g" follows the last hexadecimal digit.
    wanted = (key >= partition) & (key < partition + "g")

    def read() -> pa.Table:
        files = pads.dataset(list(paths), schema=SORTED[kind], format="parquet", filesystem=run.fs)
        return files.to_table(filter=wanted, use_threads=False)

    try:
        return run.with_retries("read", f"partition {partition} of {paths[0]} and {len(paths) - 1} more", read)
    except (pa.ArrowException, OSError):
        for path in paths:  # the error need not name the file
            run.read_file(path)
        raise


def fold(rows: Iterable[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of `schema`; a column that a row lacks is null."""
    return pa.Table.from_pylist(list(rows), schema=schema)
