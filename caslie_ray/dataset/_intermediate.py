"""Intermediate files of `ingest`, below ``RUN/ingest/``; none of them is a table of the run.

``parsed/<source>/``     the parsed rows of one source file, with prompts; kept while the file is unchanged
``fetched/``             the ledger of references: image_id or reason, so that nothing is fetched twice. With one bucket
                         its files; with several, results of images inside rows here, and ``fetched/<bucket>/``
``pending/``             fetched images that are not in the table yet
``references/``          references by bucket, and ledger rows on their way to their bucket
``plans/``               what each attempt fetches, and the sizes and modification times of files
``results/``             results of references by group of parsed rows
``sorted/``              table rows by partition
``missing/``             ids of images that the ledger has and no file
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS, SPANS

__all__ = [
    "FETCHED", "FOLDER", "LOST", "MISSING", "PARSED", "PLAN", "SORTED", "TEMPORARY", "fold", "read_range",
    "write_sorted",
]  # fmt: skip

FOLDER = "ingest"
TEMPORARY = ("pending", "references", "plans", "results", "sorted", "missing")
"""Folders whose content is of no use once the tables are written."""

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
        ("product_id", pa.string()),
        ("contexts", _LISTS),
        ("places", pa.list_(pa.int32())),
    ]
)
"""A row of a source: a sample with its references and prompts, one per image, or a reason; `notes` as in `Sample`.
Or a product, with references and prompts per context and image: `product_id` is not null, `input` has its texts, and
`contexts` and `places` name the context and the image of each reference."""

FETCHED = pa.schema(
    [
        ("key", pa.string()),
        ("settings", pa.string()),
        ("image_id", pa.string()),
        ("reason", pa.string()),
        ("retryable", pa.bool_()),
        ("block", pa.string()),
        ("etag", pa.string()),
        ("last_modified", pa.string()),
        ("version", pa.int32()),
    ]
)
"""The result of a reference: an image or a reason. `block` names the file in ``pending/`` that has the image, until it
is in the table; null if that file has the name of this one. `etag` and `last_modified` are the validators of the answer
that gave the result. Of results of one key that with the highest `version` counts; null is 0."""

PLAN = pa.schema(
    [
        ("locator", pa.string()),
        ("key", pa.string()),
        ("pending", pa.bool_()),
        ("reason", pa.string()),
        ("retryable", pa.bool_()),
        ("version", pa.int32()),
        ("known", pa.struct([FETCHED.field(name) for name in ("image_id", "reason", "etag", "last_modified")])),
    ]
)
"""References that are files or must be fetched, each with its ledger key, or why the file cannot be read. `version` is
that of the result to come, and `known` is the result of a URL that is asked for again."""

MISSING = pa.schema([("image_id", pa.string())])

LOST = pa.list_(
    pa.struct([("source", pa.string()), ("reason", pa.string()), ("retryable", pa.bool_())]),
)
"""The references of one sample that gave no image."""

SORTED: dict[str, pa.Schema] = {
    "images": SCHEMAS["images"],
    "views": SCHEMAS["views"].append(pa.field("order", pa.int64())).append(pa.field("block", pa.string())),
    "samples": pa.schema(
        [
            *SCHEMAS["samples"],
            pa.field("order", pa.int64()),
            pa.field("rank", pa.int32()),
            pa.field("location", pa.string()),
            pa.field("lost", LOST),
        ]
    ),
    "products": pa.schema(
        [
            ("key", pa.string()),
            *(SCHEMAS["products"].field(name) for name in SCHEMAS["products"].names if name != "gone"),
            ("order", pa.int64()),
            ("lost", LOST),
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
    "references": pa.schema(
        [("hash", pa.string()), ("locator", pa.string()), ("group", pa.string()), ("place", pa.int32())]
    ),
    "ledger": pa.schema([("hash", pa.string()), *FETCHED]),
    "results": pa.schema(
        [
            ("group", pa.string()),
            ("locator", pa.string()),
            ("image_id", pa.string()),
            ("reason", pa.string()),
            ("retryable", pa.bool_()),
            ("block", pa.string()),
        ]
    ),
}
"""Rows that one step sorts and the next one reads by range; `order` is their place in the sources."""

_KEY = {
    "images": "image_id",
    "views": "image_id",
    "samples": "sample_id",
    "products": "key",
    "rejects": "key",
    "references": "hash",
    "ledger": "hash",
    "results": "group",
}
_ROW_GROUP = {"images": 32, "views": 256, "samples": 256}
_SMALL_ROWS = 4096


def write_sorted(run: Run, folder: str, stem: str, kind: str, rows: pa.Table) -> str | None:
    """Write rows of one of `SORTED`, sorted by key, so that `read_range` can read a range of keys cheaply.

    Returns:
        The path; None if there are no rows and so no file.
    """
    if not rows.num_rows:
        return None
    key = _KEY[kind]
    rows = rows.select(SORTED[kind].names).cast(SORTED[kind]).sort_by(key)
    sink = pa.BufferOutputStream()
    codec = "none" if kind == "images" else "zstd"
    size = _ROW_GROUP.get(kind, _SMALL_ROWS)
    pq.write_table(rows, sink, compression=codec, row_group_size=size, write_statistics=[key])
    path = run.table_path(f"{FOLDER}/{folder}", stem)
    run.put(path, sink.getvalue())
    return path


def read_range(run: Run, paths: Sequence[str], kind: str, prefix: str, where: pc.Expression | None = None) -> pa.Table:
    """Return the rows of `paths` whose key, in hexadecimal digits, starts with `prefix`.

    Args:
        run: where they are.
        paths: files that `write_sorted` wrote.
        kind: as in `write_sorted`.
        prefix: the partition, bucket or group; ``""`` for all rows.
        where: a further condition.

    Raises:
        DamagedFile: a file is damaged.
    """
    if not paths:
        return SORTED[kind].empty_table()
    key = pc.field(_KEY[kind])
    # "g" follows the last hexadecimal digit.
    wanted = (key >= prefix) & (key < prefix + "g")
    if where is not None:
        wanted &= where

    def read() -> pa.Table:
        files = pads.dataset(list(paths), schema=SORTED[kind], format="parquet", filesystem=run.fs)
        return files.to_table(filter=wanted, use_threads=False)

    try:
        return run.with_retries("read", f"partition {prefix} of {paths[0]} and {len(paths) - 1} more", read)
    except (pa.ArrowException, OSError):
        for path in paths:  # the error need not name the file
            run.read_file(path)
        raise


def fold(rows: Iterable[dict[str, object]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of `schema`; a column that a row lacks is null."""
    return pa.Table.from_pylist(list(rows), schema=schema)
