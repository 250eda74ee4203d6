"""Files of a partition: images by id, and files that may be damaged."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caslie_ray.errors import RunError, StoreError
from caslie_ray.storage.damaged_files import salvaged
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS

__all__ = ["read_images", "read_undamaged", "salvaged_rows"]


def read_images(run: Run, partition: str, image_ids: Collection[str]) -> Mapping[str, bytes]:
    """Return encoded images of a partition by id; ids without an image are left out."""
    encoded: dict[str, bytes] = {}
    ids = sorted(image_ids)
    # Files are sorted by image id, so the range filter skips most row groups.
    name = pc.field("image_id")
    where = (name >= ids[0]) & (name <= ids[-1]) & name.isin(ids)
    for path in run.files("images", partition):
        rows = run.read_file(path, ["image_id", "image"], where)
        encoded.update(zip(rows["image_id"].to_pylist(), rows["image"].to_pylist(), strict=True))
    return encoded


def read_undamaged(run: Run, path: str, columns: list[str] | None = None) -> pa.Table | None:
    """Return a file's rows; None if its bytes are not valid Parquet.

    Raises:
        RunError: the store does not return its bytes; the file is then not treated as damaged.
    """
    try:
        return run.read_file(path, columns)
    except StoreError:
        raise
    except RunError:
        data = run.read_bytes(path)
        try:
            return pq.read_table(pa.BufferReader(data), columns=columns, schema=run.schema_of(path))
        except (pa.ArrowException, OSError):
            return None


def salvaged_rows(run: Run, path: str) -> list[dict[str, Any]]:
    """Return the rows of a damaged file of `captions`, with only the answers that are readable and did not fail."""
    table = salvaged(run.read_bytes(path), SCHEMAS["captions"])
    rows: list[dict[str, Any]] = [] if table is None else table.to_pylist()
    for row in rows:
        if row["caption"] is None:
            row["caption_key"] = None
        row["votes"] = [vote for vote in row["votes"] or () if vote["key"] is not None and vote["p_yes"] is not None]
    return rows
