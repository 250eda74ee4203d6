"""Looks up rows and images by id, for what the report page shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.evaluation._partitions import Partition, is_large, map_chunks, partitions_of
from caslie_ray.evaluation.report.text_limits import truncate_columns
from caslie_ray.evaluation.report.thumbnails import make_thumbnails
from caslie_ray.storage.partitions import partition_of
from caslie_ray.storage.run import Run

__all__ = ["find_thumbnails", "rows_of"]


def find_thumbnails(run: Run, image_ids: Collection[str]) -> dict[str, str | None]:
    """Return thumbnails by image id, made where the images are read; see `make_thumbnails`.

    Raises:
        RunError: a table cannot be read.
    """
    partitions = partitions_of(run, ["images"])
    large = is_large(run, partitions, "images")
    digits = max((len(one.name) for one in partitions if one.name != "all"), default=0)
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    for image_id in image_ids:
        wanted[partition_of(image_id, digits)].add(image_id)
    partitions = [partition for partition in partitions if partition.name in wanted]
    count = len(set(image_ids))

    def read(chunk: Sequence[Partition]) -> dict[str, str | None]:
        images: dict[str, bytes] = {}
        for partition in chunk:
            ids = pa.array(sorted(wanted[partition.name]), pa.string())
            for path in partition.files["images"]:
                table = run.read_file(path, ["image_id", "image"], pc.field("image_id").isin(ids))
                images |= dict(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))
        return make_thumbnails(images, count)

    found = [part.result for part in map_chunks(read, partitions, in_tasks=large)]
    return {image_id: small for part in found for image_id, small in part.items()}


def rows_of(
    run: Run, table: str, chunk: Sequence[Partition], ids: Collection[str], columns: list[str] | None
) -> list[dict[str, Any]]:
    """Return the rows of a table with some ids, with truncated texts; the last written if a row was written twice.

    Raises:
        RunError: a file cannot be read.
    """
    name = "view_id" if table in ("captions", "views") else "sample_id"
    wanted = pa.array(sorted(ids), pa.string())
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in (path for partition in chunk for path in partition.files[table]):
        for row in truncate_columns(run.read_file(path, columns, pc.field(name).isin(wanted))).to_pylist():
            found[row[name], row.get("variant"), row.get("model")] = row
    return list(found.values())
