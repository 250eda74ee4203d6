"""What jobs do with damaged files: keep a copy, and salvage the columns that can still be read."""

from __future__ import annotations

import logging
import posixpath

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from caslie_ray.hashing import content_id
from caslie_ray.storage._fixes import DAMAGED
from caslie_ray.storage._folder import Folder

__all__ = ["DAMAGED", "keep_copy", "keep_folder", "salvaged"]

log = logging.getLogger(__name__)


def keep_copy(run: Folder, path: str) -> str | None:
    """Copy a damaged file into ``RUN/damaged`` and return the path of the copy; None if the file is empty or missing.

    Raises:
        RunError: the store refuses.
    """
    if not run.info([path])[0].is_file or not (data := run.read_bytes(path)):
        return None
    stem, mark, ending = path.removeprefix(f"{run.root}/").rpartition(".")
    kept = run.path(DAMAGED, f"{stem}-{content_id(data)[:8]}{mark}{ending}")
    run.put(kept, data)
    log.warning("%s is damaged and is replaced; a copy is in %s", path, kept)
    return kept


def keep_folder(run: Folder, name: str) -> str:
    """Copy a folder of the run into ``RUN/damaged`` and return the path of the copy.

    Raises:
        RunError: the store refuses.
    """
    folder, kept = run.path(name), run.path(DAMAGED, name)
    selector = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
    found: list[pafs.FileInfo] = run.with_retries("list", folder, lambda: run.fs.get_file_info(selector))
    for path in (info.path for info in found if info.is_file):
        run.put(posixpath.join(kept, posixpath.relpath(path, folder)), run.read_bytes(path))
    return kept


def salvaged(data: bytes, schema: pa.Schema) -> pa.Table | None:
    """Return a damaged Parquet file with null in each column that cannot be read; None if no column can."""
    columns: dict[str, pa.ChunkedArray] = {}
    for field in schema:
        try:
            columns[field.name] = pq.read_table(pa.BufferReader(data), columns=[field.name], schema=schema)[field.name]
        except (pa.ArrowException, OSError):
            continue
    if not columns:
        return None
    rows = len(next(iter(columns.values())))
    return pa.table([columns.get(field.name, pa.nulls(rows, field.type)) for field in schema], schema=schema)
