"""Reading source files: JSON, JSON Lines, Parquet, delimited text, XML feeds and tar shards, with or without gzip.

The format is detected from a file's content, not its name. Everything is read as a stream; a row that cannot be read is
a record with a reason, and the rows around it are read all the same. Rows of JSON may lie below keys or in columns
(`_shapes`), and text may be in another encoding than UTF-8 (`_text_stream`); a record's notes name that. A folder of
pictures is read like a file whose rows name them (`_pictures`).
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.catalogue.joining import ROW_NUMBER_ID, Joiner
from caslie_ray.catalogue.product import Product, RowProblem
from caslie_ray.dataset._binary_cells import decode_cells
from caslie_ray.dataset._byte_streams import ByteStream, Counted, Gunzip
from caslie_ray.dataset._catalogue import CatalogueSettings
from caslie_ray.dataset._columns import Columns, split_of_name
from caslie_ray.dataset._delimited import read_delimited
from caslie_ray.dataset._delimited_records import Dialect
from caslie_ray.dataset._feed import feed_format, read_feed
from caslie_ray.dataset._format import delimited_format, json_format, no_rows, read_head
from caslie_ray.dataset._json_lines import read_lines
from caslie_ray.dataset._json_values import read_values
from caslie_ray.dataset._limits import DEFAULT, Limits, OverLimit, Ratio
from caslie_ray.dataset._parquet import read_rows
from caslie_ray.dataset._pictures import read_pictures
from caslie_ray.dataset._shapes import FIRST, Damage, Found, Shapes
from caslie_ray.dataset._sources import SourceFile, files_below
from caslie_ray.dataset._text_stream import TextStream, encoding_of, western
from caslie_ray.dataset._webdataset import read_webdataset, webdataset_format
from caslie_ray.errors import RunError, SourceError, StoreError
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
        product: the product, in place of `row`, where the file is a catalogue.
    """

    number: int
    location: str
    row: dict[str, object] | None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    limited: bool = False
    product: Product | None = None


def read_source(
    file: SourceFile,
    columns: Columns,
    encoding: str | None = None,
    limits: Limits = DEFAULT,
    catalogue: CatalogueSettings | None = None,
) -> Iterator[Record]:
    """Yield the rows of one file in order, whatever is wrong with some of them; of a catalogue, its products.

    Of a file that is over a limit, the rows before that are yielded, and one record with the reason.

    Args:
        file: the file.
        columns: the names that its columns may have.
        encoding: the encoding of its text where it has no byte order mark; None to detect it.
        limits: what the file may cost.
        catalogue: how a catalogue is read; None if every row is a sample.

    Raises:
        StoreError: an object store does not give the file; what it holds is not to pass for damaged.
    """
    ratio = Ratio(limits)
    rows = _Rows(file, columns, encoding)
    try:
        found = _counted(_values(file, Shapes(columns, catalogue), encoding, limits, ratio), ratio)
        if catalogue is None:
            yield from map(rows.record, found)
        else:
            yield from _records(found, rows, catalogue)
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


class _Rows:
    """Makes records of the values of one file."""

    def __init__(self, file: SourceFile, columns: Columns, encoding: str | None) -> None:
        self._file = file
        self._columns = columns
        self._encoding = encoding
        self._split = split_of_name(file.name)

    def record(self, found: Found) -> Record:
        """Return the record of a row of a data set."""
        number, value, split, notes = found
        location = self.location(number)
        if isinstance(value, Damage):
            return Record(number, location, None, value.reason, notes, value.limited)
        if not isinstance(value, Mapping):
            kind = "null" if value is None else type(value).__name__
            reason = f"no row: a {kind} in the place of an object with the row's columns"
            return Record(number, location, None, reason, notes)
        row = self._columns.read(value, split or self._split)
        why, more = decode_cells(row, value, self._columns, self._encoding)
        return Record(number, location, None if why else row, why, (*notes, *more))

    def product(self, product: Product | RowProblem, notes: tuple[str, ...]) -> Record:
        """Return the record of a product, with the notes of its rows."""
        location = self.location(product.number)
        if isinstance(product, RowProblem):
            return Record(product.number, location, None, product.reason, notes)
        if ROW_NUMBER_ID in product.notes:  # several files have the same numbers
            product = replace(product, product_id=location.rsplit("/", 1)[-1])
        return Record(product.number, location, None, notes=(*notes, *product.notes), product=product)

    def location(self, number: int) -> str:
        """Return where a row is, for a reader."""
        return f"{self._file.name}:{number}" if number else self._file.name


def _counted(values: Iterator[Found], ratio: Ratio) -> Iterator[Found]:
    for count, found in enumerate(values, 1):
        ratio.check_rows(count)
        yield found


def _records(values: Iterator[Found], rows: _Rows, catalogue: CatalogueSettings) -> Iterator[Record]:
    """Yield the records of a file that may be a catalogue: its first rows decide, of which some may lack a column."""
    first = list(islice(values, FIRST))
    columns = dict.fromkeys(name for found in first if isinstance(found.value, Mapping) for name in found.value)
    try:
        joiner = catalogue.joiner(columns) if columns else None
    except SourceError as error:
        yield Record(0, rows.location(0), None, str(error))
        return
    every = chain(first, values)
    yield from map(rows.record, every) if joiner is None else _products(every, rows, joiner)


def _products(values: Iterator[Found], rows: _Rows, joiner: Joiner) -> Iterator[Record]:
    notes: dict[str, None] = {}  # of the rows since the last product that is complete
    for found in values:
        if isinstance(found.value, Mapping):
            for complete in joiner.add(found.number, found.value):
                yield rows.product(complete, tuple(notes))
                notes.clear()
            notes |= dict.fromkeys(found.notes)
        else:
            for complete in joiner.end():
                yield rows.product(complete, tuple(notes))
            notes.clear()
            yield rows.record(found)
    for complete in joiner.end():
        yield rows.product(complete, tuple(notes))


def _values(file: SourceFile, shapes: Shapes, encoding: str | None, limits: Limits, ratio: Ratio) -> Iterator[Found]:
    """Yield the values of a file; `ratio` learns its size."""
    filesystem, inner = open_path(file.path)
    if file.pictures:
        yield from read_pictures(files_below(filesystem, inner)[0], ratio)
        return
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
    if webdataset_format(head):
        with _stream(filesystem, inner, ratio, packed=packed) as stream:
            yield from read_webdataset(stream, limits)
        return
    shape: str | Dialect | None = json_format(head, encoding, named_lines, limits)
    if shape is None and feed_format(head):
        with _stream(filesystem, inner, ratio, packed=packed) as stream:
            yield from read_feed(stream, limits)
        return
    shape = shape or delimited_format(head, encoding, file.name)
    if shape is None:
        yield Found(0, Damage(no_rows(head)))
        return

    def is_western() -> bool:
        with again() as stream:
            return western(stream)

    name = encoding_of(head, encoding)
    look = is_western if name == "utf-8" and encoding is None else None
    with _stream(filesystem, inner, ratio, packed=packed) as stream:
        text = TextStream(stream, name, look)
        if isinstance(shape, Dialect):
            yield from read_delimited(text, shape, limits)
        else:
            read = read_lines if shape == "lines" else read_values
            yield from read(text, shapes, limits)


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
