"""Files that cannot be read: what can be saved of them, which job replaces them, and where they are kept."""

from __future__ import annotations

import posixpath

import pyarrow as pa
import pyarrow.parquet as pq

from caslie_ray.errors import RunError

__all__ = ["DAMAGED", "DamagedFile", "mend_for", "mismatches", "salvaged"]

DAMAGED = "damaged"
"""The folder of a run in which jobs keep copies of damaged files that they replaced."""

_KEEP = f"and keeps a copy of the file in {DAMAGED}/"
_MOVE = "move it to another folder and run {job} again, which writes it anew"
_INGEST = f"run ingest again: it reads and fetches what is missing, {_KEEP}"
_TABLES = ("samples", "images", "views", "rejects")
_MENDS = {
    "captions": f"run caption again: it uses the answers that can still be read, asks for the others, {_KEEP}",
    "answers": f"run caption again: it asks for the answers of this file, {_KEEP}",
    "predictions": f"run predict again: it asks the questions of this file, {_KEEP}",
    "instructions": "run fuse again, which writes it anew",
    "experiments": "run fuse again, which writes it anew",
    # Ingest skips tables whose names and sizes have not changed.
    **dict.fromkeys(_TABLES, f"{_INGEST}; if the error stays, move the file to another folder first"),
    **dict.fromkeys(("fetched", "parsed", "pending"), _INGEST),
}


class DamagedFile(RunError):
    """A file of a run is damaged; the job that wrote it can replace it. `path` is its path on the run's store."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[str, str]]:
        return DamagedFile, (str(self), self.path)


def mend_for(path: str, *, noticed: bool = True) -> str:
    """Return what a user can do about a damaged file of a run, without losing anything.

    Args:
        path: the file.
        noticed: whether its footer shows that something is wrong. Where it does not, caption takes the partition for
            finished, and ingest the table for complete; both leave the file alone.
    """
    folder = posixpath.dirname(path)
    names = posixpath.basename(folder), posixpath.basename(posixpath.dirname(folder))
    if not noticed and "captions" in names:
        return _MOVE.format(job="caption")
    if not noticed and names[0] in _TABLES:
        return _MOVE.format(job="ingest")
    if names[0] == "ingest":
        return _INGEST
    found = next((_MENDS[name] for name in names if name in _MENDS), None)
    return found or _MOVE.format(job="the job that wrote it")


def mismatches(found: pa.Schema, declared: pa.Schema) -> list[str]:
    """Return, in words, the columns of a file whose type is not the declared one."""
    return [
        f"column {field.name} is {found.field(field.name).type} and {field.type} is wanted"
        for field in declared
        if field.name in found.names and not found.field(field.name).type.equals(field.type)
    ]


def salvaged(data: bytes, schema: pa.Schema) -> pa.Table | None:
    """Return the columns that can still be read of a Parquet file; the others are null. None where none can be."""
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
