"""Reading sources: JSON arrays, JSON Lines and Parquet, each with or without gzip, alone or in folders.

What a file holds is told from its content, not its name. Everything is read as a stream; a row that cannot
be read is a record with a reason, and its neighbours are read all the same. Rows may lie below keys or in columns
(`_shapes`), and text in another encoding than UTF-8 (`_text`); a record's notes say so.
"""

from __future__ import annotations

import codecs
import json
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.dataset._inside import Skipped, leave_out_runs, refuse_runs
from caslie_ray.dataset._json import read_lines, read_values
from caslie_ray.dataset._limits import DEFAULT, Limits, OverLimit, Ratio
from caslie_ray.dataset._parquet import read_rows
from caslie_ray.dataset._scan import excess
from caslie_ray.dataset._shapes import Damage, Found, Shapes
from caslie_ray.dataset._text import ByteStream, Counted, Gunzip, TextStream, encoding_of, western
from caslie_ray.dataset.columns import Columns, split_of_name
from caslie_ray.dataset.roots import with_path
from caslie_ray.dataset.summary import plural
from caslie_ray.errors import RunError, SourceError, StoreError
from caslie_ray.imaging.file_types import looks_like
from caslie_ray.storage.filesystems import is_object_store, open_path
from caslie_ray.storage.range_reader import open_ranges
from caslie_ray.storage.redaction import brief, public_uri, without_credentials
from caslie_ray.storage.retries import with_retries
from caslie_ray.storage.run import Run

__all__ = ["Record", "SourceFile", "find_sources", "read_source"]

_DATA = re.compile(r"\.(json|jsonl|ndjson|parquet)(\.gz)?$", re.IGNORECASE)
_LINES = re.compile(r"\.(jsonl|ndjson)(\.gz)?$", re.IGNORECASE)
_HEAD = 256 * 1024
_FIRST_LINE = 16 << 20  # bytes in which the end of the first line is looked for
_HEADER_RANGE = 64 << 10  # bytes of a request for the header of a Parquet page
_NAMES = 3
_GZIP = b"\x1f\x8b"
_BEFORE_ROWS = codecs.BOM_UTF8 + b" \t\r\n"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: how messages and rejects name it; without credentials.
        path: its absolute path or URI, with the options and credentials of its source.
        version: changes when the file does.
        source: the folder that was given as a source, in the form of `path`; empty where the file itself was.
    """

    name: str
    path: str = field(repr=False)
    version: str
    source: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source under the released column names, or the reason why there is none.

    Attributes:
        number: the row in the file, from 1; the line in JSON Lines.
        location: file and number, for a reader.
        row: the cells; None where the row cannot be read.
        reason: why not; None where it can.
        notes: how the row was read, where a user may not expect it, such as ``"cp1252"``.
        limited: whether it cannot be read because of a limit of the profile.
    """

    number: int
    location: str
    row: dict[str, object] | None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    limited: bool = False


def find_sources(sources: Sequence[str], run: Run | None = None) -> tuple[list[SourceFile], Skipped]:
    """List the files of sources, each once and in order, and count the files of folders that are left out.

    Args:
        sources: files or folders, by path or URI. Folders are searched to the bottom for ``.json``,
            ``.jsonl``, ``.ndjson`` and ``.parquet`` files, with or without ``.gz``; hidden ones are left out,
            and so are the files of runs.
        run: the run that the rows go to.

    Raises:
        SourceError: a source is not there, is a run or a part of one, or a folder has no such file.
    """
    found: dict[str, SourceFile] = {}
    skipped = Skipped(0, 0)
    for source in sources:
        shown = public_uri(source)
        if re.match(r"https?://", source, re.IGNORECASE):
            raise SourceError(f"{shown} is a web address: download it and give its path")
        try:
            filesystem, inner = open_path(source)
            info = _look_up(filesystem, inner)
            if info.type == pafs.FileType.NotFound:
                raise SourceError(f"there is no source {shown}: check the path")
            if (reason := refuse_runs(filesystem, info, run)) is not None:
                raise SourceError(f"source {shown} {reason}")
            if info.type == pafs.FileType.Directory:
                files, others = _folder(filesystem, inner, source, run)
                skipped = Skipped(
                    skipped.others + others.others,
                    skipped.run_files + others.run_files,
                    skipped.run_folders + others.run_folders,
                )
            else:
                path = source if "://" in source else inner
                if info.type != pafs.FileType.File:  # reading a pipe or a device may never end
                    raise SourceError(f"source {shown} is no regular file: copy its data into one")
                files = [SourceFile(shown, path, f"{info.size}|{info.mtime_ns}")]
        except (OSError, RunError) as error:
            raise SourceError(f"cannot open source {shown}: {without_credentials(str(error))}") from None
        for file in files:
            found.setdefault(file.path, replace(file, name=_printable(file.name)))
    return list(found.values()), skipped


def _look_up(filesystem: pafs.FileSystem, path: str) -> pafs.FileInfo:
    return with_retries(filesystem, "look up", path, lambda: filesystem.get_file_info(path))


def _printable(name: str) -> str:
    """File names may hold bytes that are no text; tables may not."""
    return name.encode("utf-8", "backslashreplace").decode()


def _folder(filesystem: pafs.FileSystem, inner: str, source: str, run: Run | None) -> tuple[list[SourceFile], Skipped]:
    shown = public_uri(source)
    selector = pafs.FileSelector(inner, recursive=True)
    infos = with_retries(filesystem, "list", inner, lambda: filesystem.get_file_info(selector))
    infos = [info for info in infos if info.type == pafs.FileType.File]
    kept, runs = leave_out_runs(filesystem, inner, infos, run)
    files: list[SourceFile] = []
    others = 0
    for info in sorted(kept, key=lambda info: info.path):
        below = posixpath.relpath(info.path, inner)
        if any(part.startswith(".") for part in below.split("/")):
            continue
        if not _DATA.search(below):
            others += 1
            continue
        path = info.path
        if "://" in source:
            path = with_path(source, posixpath.join(urlsplit(source).path or "/", quote(below)))
        name = posixpath.join(shown, below)
        given = source if "://" in source else inner
        files.append(SourceFile(name, path, f"{info.size}|{info.mtime_ns}", given))
    run_files = len(infos) - len(kept)
    if not files:
        besides = f" besides {plural(run_files, 'file')} of the runs {', '.join(runs[:_NAMES])}" if run_files else ""
        raise SourceError(f"folder {shown} has no .json, .jsonl, .ndjson or .parquet file{besides}: name the data")
    return files, Skipped(others, run_files, runs)


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
                yield _record(number, location, value, row, notes, encoding, columns)
            else:
                kind = "null" if value is None else type(value).__name__
                reason = f"no row: a {kind} stands where an object with the row's columns should"
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


def _record(
    number: int, location: str, source: Mapping[str, object], row: dict[str, object], notes: tuple[str, ...],
    encoding: str | None, columns: Columns,
) -> Record:  # fmt: skip
    """Return the record of a row with its binary cells, except for images, decoded as text.

    An id that is no text is written in hexadecimal. A column of another name is left out where it is no text.

    Args:
        number: the number of the row.
        location: its file and number.
        source: the row under the column names of the source.
        row: the row under the released names.
        notes: how it was read.
        encoding: the encoding of binary text; UTF-8 where None.
        columns: the names that columns may have.
    """
    name = encoding or "utf-8"
    for column, cell in row.items():
        if column == "images":
            continue
        if column == "id" and isinstance(cell, bytes):
            row[column] = _id_text(cell, name)
            continue
        if column == "other_columns" and isinstance(cell, dict):
            row[column], left_out = _decodable(cell, name)
            notes = (*notes, *(f"undecodable column {key} left out" for key in left_out))
            continue
        try:
            row[column] = _as_text(cell, name)
        except UnicodeError as error:
            names = [key for key in source if columns.known(key) == column]
            own = next((key for key in names if source[key] is cell), names[0] if names else column)
            at = f" at byte {error.start + 1}" if isinstance(error, UnicodeDecodeError) else ""
            reason = (
                f"undecodable text: column {own} is binary and not {encoding or 'UTF-8'}{at};"
                " write it as text, or name its encoding with ingest.encoding"
            )
            return Record(number, location, None, reason, notes)
    return Record(number, location, row, None, notes)


def _id_text(cell: bytes, encoding: str) -> str:
    with suppress(UnicodeError):
        text = cell.decode(encoding)
        if text.isprintable():  # the bytes of a UUID may be valid text by chance
            return text
    return cell.hex()


def _decodable(cells: Mapping[str, object], encoding: str) -> tuple[dict[str, object], list[str]]:
    """Return the cells that can be decoded, and the names of the others."""
    found: dict[str, object] = {}
    left_out: list[str] = []
    for key, cell in cells.items():
        try:
            found[key] = _as_text(cell, encoding)
        except UnicodeError:
            left_out.append(key)
    return found, left_out


def _as_text(cell: object, encoding: str) -> object:
    if isinstance(cell, bytes):
        return cell.decode(encoding)
    if isinstance(cell, list):
        return [_as_text(one, encoding) for one in cell]
    if isinstance(cell, dict):
        return {_as_text(key, encoding): _as_text(one, encoding) for key, one in cell.items()}
    return cell


def _values(file: SourceFile, columns: Columns, encoding: str | None, limits: Limits, ratio: Ratio) -> Iterator[Found]:
    """Yield the values of a file; `ratio` learns its size."""
    filesystem, inner = open_path(file.path)
    with _stream(filesystem, inner) as stream:
        packed = stream.read(2) == _GZIP
    named_lines = bool(_LINES.search(file.name))

    def again() -> AbstractContextManager[ByteStream]:
        return _stream(filesystem, inner, Ratio(limits), packed=packed)

    with again() as stream:
        head = _head(stream, named_lines)
    if head[:4] == b"PAR1":
        yield from _parquet_rows(filesystem, inner, packed, limits, ratio)
        return
    shape = _shape(head, encoding, named_lines, limits)
    if shape is None:
        yield Found(0, Damage(_no_rows(head)))
        return

    def is_western() -> bool:
        with again() as stream:
            return western(stream)

    name = encoding_of(head, encoding)
    look = is_western if name == "utf-8" and encoding is None else None
    read = read_lines if shape == "lines" else read_values
    with _stream(filesystem, inner, ratio, packed=packed) as stream:
        yield from read(TextStream(stream, name, look), Shapes(columns), limits)


def _head(stream: ByteStream, named_lines: bool) -> bytes:
    """Return the start of a file; in a file that is named as JSON Lines, past the end of its first line."""
    pieces: list[bytes] = []
    length = 0
    line_ended = not named_lines
    with suppress(OSError):  # reading the rows reports it
        while (length < _HEAD or (not line_ended and length < _FIRST_LINE)) and (piece := stream.read(_HEAD)):
            line_ended = line_ended or b"\n" in (piece if length else piece.lstrip(_BEFORE_ROWS))
            pieces.append(piece)
            length += len(piece)
    head = b"".join(pieces)
    return head if line_ended else head[:_HEAD]


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


def _shape(head: bytes, encoding: str | None, named_lines: bool, limits: Limits) -> str | None:
    """Return ``"lines"`` for an object a line, ``"values"`` for other JSON; None where there is no JSON."""
    text = head.decode(encoding_of(head, encoding), errors="replace").lstrip("\ufeff \t\r\n")
    if text.startswith("["):
        return "values"
    if len(head) > 2 * _HEAD and excess(text, 0, len(text), limits) is not None:
        return "lines"  # of a head of this length the first line is all; it is too much to be parsed
    first, _, rest = text.partition("\n")
    if text.startswith("{"):
        # A single line may be a row, or hold all of them below a key.
        if not rest.strip() and (not named_lines or len(head) >= _HEAD):
            return "values"
        if _is_object(first) or (named_lines and not _goes_on(text, len(first))):
            return "lines"
        return "lines" if not _goes_on(text, len(first)) and _has_whole_line(text) else "values"
    return "lines" if _has_whole_line(text) else None


def _goes_on(text: str, line: int) -> bool:
    """Whether the value at the start of a text goes on behind its first line, so far as the text shows."""
    try:
        return json.JSONDecoder().raw_decode(text)[1] > line
    except json.JSONDecodeError as error:
        return error.pos > line
    except (ValueError, RecursionError):
        return False


def _has_whole_line(text: str) -> bool:
    return any(map(_is_object, text.split("\n")[:200]))


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line.strip("\ufeff \t\r")), dict)
    except (ValueError, RecursionError):
        return False


def _no_rows(head: bytes) -> str:
    if not head.strip():
        return "empty file: it has no rows"
    return f"not a data set: it looks like {looks_like(head)}; give a JSON array, JSON Lines or Parquet"
