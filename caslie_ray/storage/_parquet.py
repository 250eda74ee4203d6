"""Parquet files of a run: encoding, checked reading, and metadata in the footer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caslie_ray.errors import DamagedFile, RunError, StoreError
from caslie_ray.storage._fixes import fix_for
from caslie_ray.storage._folder import Folder
from caslie_ray.storage.redaction import brief

__all__ = ["encode", "note_in_footer", "read_footer", "read_rows"]

_T = TypeVar("_T")

_ROW_GROUP = 1024
# A block of views reads its own images, and few others.
_ROW_GROUP_IMAGES = 64
_MOVE_AWAY = "move the file to another folder and run the job that wrote it again"


def encode(table: str, rows: pa.Table, schema: pa.Schema, note: Mapping[str, str] | None) -> pa.Buffer:
    """Return rows as a Parquet file with zstd compression; images are compressed already.

    Args:
        table: its name, for messages.
        rows: with at least the columns of the schema.
        schema: columns to write, and their types.
        note: key-value metadata of the footer.

    Raises:
        RunError: the rows do not fit the schema.
    """
    try:
        rows = rows.select(schema.names).cast(schema)
    except (KeyError, pa.ArrowException) as error:
        raise RunError(f"rows do not fit table {table!r}: {brief(error)}") from error
    rows = rows.replace_schema_metadata(dict(note) if note else None)
    codec = {name: "none" if name == "image" else "zstd" for name in schema.names}
    row_group = _ROW_GROUP_IMAGES if "image" in schema.names else _ROW_GROUP
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression=codec, row_group_size=row_group)
    return sink.getvalue()


def read_rows(
    folder: Folder,
    path: str,
    schema: pa.Schema | None,
    ids: Sequence[str],
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
) -> pa.Table:
    """Read rows of a file; columns of the schema that the file lacks are null.

    Raises:
        StoreError: the store does not return it, memory is short, or this pyarrow cannot read such files.
        DamagedFile: it is incomplete, or has rows without any value in a column of `ids`.
    """

    def read() -> pa.Table:
        rows = pq.read_table(
            path, columns=columns, filesystem=folder.fs, partitioning=None, filters=where, schema=schema
        )
        if schema is not None:
            _refuse_rows_without_ids(rows, ids)
        return rows

    return _checked(folder, path, schema, read)


def read_footer(folder: Folder, path: str, schema: pa.Schema | None) -> pq.FileMetaData:
    """Read a file's footer.

    Raises:
        RunError: the file is incomplete, or the store does not return it.
    """
    return _checked(folder, path, schema, lambda: pq.read_metadata(path, filesystem=folder.fs))


def note_in_footer(footer: pq.FileMetaData, schema: pa.Schema | None) -> dict[str, str]:
    """Return the key-value metadata of a footer; empty if column types differ from the schema: another program has
    rewritten the file."""
    if schema is not None and _mismatches(footer.schema.to_arrow_schema(), schema):
        return {}
    metadata = footer.metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"}


def _checked(folder: Folder, path: str, schema: pa.Schema | None, read: Callable[[], _T]) -> _T:
    """Read a file; distinguish a damaged one from one that cannot be read at the moment.

    Raises:
        DamagedFile: the file is damaged, or a column has a type that cannot be converted.
        StoreError: the store fails, memory is short, or this version of Arrow lacks what the file needs.
    """
    try:
        return folder.with_retries("read", path, read)
    except MemoryError as error:  # Arrow's too; a damaged length field may request any amount
        fix = f"give the job more memory; if the error stays, {_MOVE_AWAY}"
        raise StoreError(f"cannot read {path}: {brief(error)}; {fix}") from error
    except (pa.ArrowException, OSError) as error:
        wrong = _wrong_columns(folder, path, schema)
        if isinstance(error, pa.ArrowNotImplementedError) and not wrong:
            fix = f"use the pyarrow version that wrote it, or {_MOVE_AWAY}"
            raise StoreError(f"cannot read {path}: {brief(error)}; {fix}") from error
        fix = fix_for(path, noticed=wrong is None or bool(wrong))
        message = f"cannot read {path}: {'; '.join([*(wrong or ()), brief(error)])}; {fix}"
        raise DamagedFile(message, path) from error


def _wrong_columns(folder: Folder, path: str, schema: pa.Schema | None) -> list[str] | None:
    """Describe the columns of a file with other types than the schema's; None if its footer cannot be read."""
    try:
        found = pq.read_schema(path, filesystem=folder.fs)
    except (pa.ArrowException, OSError):
        return None
    return [] if schema is None else _mismatches(found, schema)


def _mismatches(found: pa.Schema, declared: pa.Schema) -> list[str]:
    return [
        f"column {field.name} is {found.field(field.name).type} and {field.type} is wanted"
        for field in declared
        if field.name in found.names and not found.field(field.name).type.equals(field.type)
    ]


def _refuse_rows_without_ids(rows: pa.Table, ids: Sequence[str]) -> None:
    """A file without ids is damaged; one without other columns is older than these."""
    for name in ids:
        if rows.num_rows and name in rows.column_names and rows[name].null_count == rows.num_rows:
            raise pa.ArrowInvalid(f"column {name} holds no value")
