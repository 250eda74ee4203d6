"""Reading source files: JSON arrays, JSON Lines and Parquet, each with or without gzip.

The format is detected from a file's content, not its name. Everything is read as a stream; a row that cannot be read is
a record with a reason, and the rows around it are read all the same. Rows may lie below keys or in columns (`_shapes`),
and text may be in another encoding than UTF-8 (`_text_stream`); a record's notes name that.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.dataset._binary_cells import decode_cells
from caslie_ray.dataset._byte_streams import ByteStream, Counted, Gunzip
from caslie_ray.dataset._columns import Columns, split_of_name
from caslie_ray.dataset._format import json_format, no_rows, read_head
from caslie_ray.dataset._json_lines import read_lines
from caslie_ray.dataset._json_values import read_values
from caslie_ray.dataset._limits import DEFAULT, Limits, OverLimit, Ratio
from caslie_ray.dataset._parquet import read_rows
from caslie_ray.dataset._shapes import Damage, Found, Shapes
from caslie_ray.dataset._sources import SourceFile
from caslie_ray.dataset._text_stream import TextStream, encoding_of, western
from caslie_ray.errors import RunError, StoreError
from caslie_ray.storage.filesystems import is_object_store, open_path
from caslie_ray.storage.range_reader import open_ranges
from caslie_ray.storage.redaction import brief

__all__ = ["Record", "read_source"]

_LINES = re.compile(r"\.(jsonl|ndjson)(\.gz)?$", re.IGNORECASE)
_HEADER_RANGE = 64 << 10  # bytes of a request for the header of a Parquet page
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source under the released column names, or the reason why there is none.

    Attributes:
        number: the row in the file, from 1; the line in JSON Lines.
        location: file and number, for a reader.
        row: the cells; None where the row cannot be read.
        reason: why not; None if it can.
        notes: how the row was read, where a user may not expect it, such as ``"cp1252"``.
        limited: whether it cannot be read because of a limit of the profile.
    """

    number: int
    location: str
    row: dict[str, object] | None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    limited: bool = False


def read_source(
    file: SourceFile, columns: Columns, encoding: str | None = None, limits: Limits = DEFAULT
) -> Iterator[Record]:
    """Yield the rows of one file in order, whatever is wrong with some of them.

    Of a file that is over a limit, the rows before that are yielded, and one record with the reason.

    Args:
        file: the file.
        columns: the names that its columns may have.
        encoding: the encoding of its text where it has no byte order mark; None to detect it.
        limits: what the file may cost.

    Raises:
        StoreError: an object store does not give the file; what it holds is not to pass for damaged.
    """
    named = split_of_name(file.name)
    ratio = Ratio(limits)
    try:
        for count, (number, value, split, notes) in enumerate(_values(file, columns, encoding, limits, ratio), 1):
            ratio.check_rows(count)
            location = f"{file.name}:{number}" if number else file.name
            if isinstance(value, Damage):
                yield Record(number, location, None, value.reason, notes, value.limited)
            elif isinstance(value, Mapping):
                row = columns.read(value, split or named)
                why, more = decode_cells(row, value, columns, encoding)
                yield Record(number, location, None if why else row, why, (*notes, *more))
            else:
                kind = "null" if value is None else type(value).__name__
                reason = f"no row: a {kind} in the place of an object with the row's columns"
                yield Record(number, location, None, reason, notes)
    except StoreError:
        raise
    except OverLimit as error:
        yield Record(0, file.name, None, str(error), limited=True)
    except (OSError, RunError, pa.ArrowException) as error:
        reason = f"unreadable file: {brief(error)[:200]}; copy it again"
        yield Record(0, file.name, None, reason)
    except UnicodeError as error:  # no file may end the reading of the others
        mend = "write the file again in UTF-8, or name its encoding with ingest.encoding"
        reason = f"unreadable text: {brief(error)[:200]}; {mend}"
        yield Record(0, file.name, None, reason)


def _values(file: SourceFile, columns: Columns, encoding: str | None, limits: Limits, ratio: Ratio) -> Iterator[Found]:
    """Yield the values of a file; `ratio` learns its size."""
    filesystem, inner = open_path(file.path)
    with _stream(filesystem, inner) as stream:
        packed = stream.read(2) == _GZIP
    named_lines = bool(_LINES.search(file.name))

    def again() -> AbstractContextManager[ByteStream]:
        return _stream(filesystem, inner, Ratio(limits), packed=packed)

    with again() as stream:
        head = read_head(stream, named_lines)
    if head[:4] == b"PAR1":
        yield from _parquet_rows(filesystem, inner, packed, limits, ratio)
        return
    shape = json_format(head, encoding, named_lines, limits)
    if shape is None:
        yield Found(0, Damage(no_rows(head)))
        return

    def is_western() -> bool:
        with again() as stream:
            return western(stream)

    name = encoding_of(head, encoding)
    look = is_western if name == "utf-8" and encoding is None else None
    read = read_lines if shape == "lines" else read_values
    with _stream(filesystem, inner, ratio, packed=packed) as stream:
        yield from read(TextStream(stream, name, look), Shapes(columns), limits)


@contextmanager
def _stream(
    filesystem: pafs.FileSystem, inner: str, ratio: Ratio | None = None, *, packed: bool = False
) -> Iterator[ByteStream]:
    with _bytes(filesystem, inner) as stream:
        counted = stream if ratio is None else Counted(stream, ratio)
        yield Gunzip(counted, ratio) if packed and ratio is not None else counted


def _bytes(filesystem: pafs.FileSystem, inner: str) -> Any:
    if is_object_store(filesystem):
        return open_ranges(filesystem, inner)
    return filesystem.open_input_stream(inner, compression=None)


def _parquet_rows(
    filesystem: pafs.FileSystem, inner: str, packed: bool, limits: Limits, ratio: Ratio
) -> Iterator[Found]:
    if not packed and is_object_store(filesystem):
        with (
            _bytes(filesystem, inner) as stream,
            closing(pa.PythonFile(stream, mode="r")) as whole,
            open_ranges(filesystem, inner, buffer=_HEADER_RANGE) as second,
            closing(pa.PythonFile(second, mode="r")) as headers,
        ):
            yield from read_rows(whole, limits, ratio, headers)
        return
    if not packed:
        with filesystem.open_input_file(inner) as whole:
            yield from read_rows(whole, limits, ratio)
        return
    # Parquet is read from its end, which gzip cannot give.
    with tempfile.TemporaryFile() as unpacked:
        with _stream(filesystem, inner, ratio, packed=packed) as stream:
            _unpack(stream, unpacked, limits)
        unpacked.seek(0)
        with closing(pa.PythonFile(unpacked, mode="r")) as whole:
            yield from read_rows(whole, limits, ratio)


def _unpack(stream: ByteStream, target: BinaryIO, limits: Limits) -> None:
    """Copy a stream to a temporary file.

    Raises:
        OverLimit: it is too large for the profile or for the disk.
    """
    disk = shutil.disk_usage(tempfile.gettempdir())
    room = min(limits.temporary_bytes, disk.free - disk.total // 10)
    size = 0
    while piece := stream.read(1 << 20):
        size += len(piece)
        if size > room:
            raise OverLimit(
                f"source refused: it unpacks to more than the {max(0, room):,} bytes of local disk that it may take;"
                " unpack it yourself, or raise ingest.max_temporary_bytes where the disk has room"
            )
        target.write(piece)
