"""Reading sources: JSON arrays, JSON Lines and Parquet, each with or without gzip, alone or in folders.

What a file holds is told from its content, not its name. Everything is read as a stream; a row that cannot
be read is a record with a reason, and its neighbours are read all the same.
"""

from __future__ import annotations

import json
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.dataset._json import Damage, read_lines, read_values
from caslie_ray.dataset._looks import looks_like
from caslie_ray.dataset._parquet import read_rows
from caslie_ray.dataset._text import ByteStream, Gunzip, TextStream, encoding_of
from caslie_ray.dataset.columns import Columns, split_of_name
from caslie_ray.stores import RunError, StoreError, is_object_store, open_path, open_ranges, patiently

__all__ = ["Record", "SourceError", "SourceFile", "find_sources", "read_source"]

_DATA = re.compile(r"\.(json|jsonl|ndjson|parquet)(\.gz)?$", re.IGNORECASE)
_LINES = re.compile(r"\.(jsonl|ndjson)(\.gz)?$", re.IGNORECASE)
_HEAD = 256 * 1024
_GZIP = b"\x1f\x8b"


class SourceError(ValueError):
    """A source that is not there or cannot be listed; the message says which and what mends it."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: how messages and rejects name it.
        path: its absolute path or URI.
        version: changes when the file does.
    """

    name: str
    path: str
    version: str


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a source under the released column names, or the reason why there is none.

    Attributes:
        number: the row in the file, from 1; the line in JSON Lines.
        location: file and number, for a reader.
        row: the cells; None where the row cannot be read.
        reason: why not; None where it can.
    """

    number: int
    location: str
    row: dict[str, object] | None
    reason: str | None = None


def find_sources(sources: Sequence[str]) -> tuple[list[SourceFile], int]:
    """List the files of sources, each once and in order, and count the files of folders that hold no rows.

    Args:
        sources: files or folders, by path or URI. Folders are searched to the bottom for ``.json``,
            ``.jsonl``, ``.ndjson`` and ``.parquet`` files, with or without ``.gz``; hidden ones are left out.

    Raises:
        SourceError: a source is not there, or a folder has no such file.
    """
    found: dict[str, SourceFile] = {}
    ignored = 0
    for source in sources:
        if re.match(r"https?://", source, re.IGNORECASE):
            raise SourceError(f"{source} is a web address: download it and give its path")
        try:
            filesystem, inner = open_path(source)
            info = _look_up(filesystem, inner)
            if info.type == pafs.FileType.NotFound:
                raise SourceError(f"there is no source {source}: check the path")
            if info.type == pafs.FileType.Directory:
                files, others = _folder(filesystem, inner, source)
                ignored += others
            else:
                path = source if "://" in source else inner
                files = [SourceFile(source, path, f"{info.size}|{info.mtime_ns}")]
        except (OSError, RunError) as error:
            raise SourceError(f"cannot open source {source}: {error}") from error
        for file in files:
            found.setdefault(file.path, replace(file, name=_printable(file.name)))
    return list(found.values()), ignored


def _look_up(filesystem: pafs.FileSystem, path: str) -> pafs.FileInfo:
    return patiently(filesystem, "look up", path, lambda: filesystem.get_file_info(path))


def _printable(name: str) -> str:
    """File names may hold bytes that are no text; tables may not."""
    return name.encode("utf-8", "backslashreplace").decode()


def _folder(filesystem: pafs.FileSystem, inner: str, source: str) -> tuple[list[SourceFile], int]:
    selector = pafs.FileSelector(inner, recursive=True)
    infos = patiently(filesystem, "list", source, lambda: filesystem.get_file_info(selector))
    files: list[SourceFile] = []
    ignored = 0
    for info in sorted(infos, key=lambda info: info.path):
        below = posixpath.relpath(info.path, inner)
        if info.type != pafs.FileType.File or any(part.startswith(".") for part in below.split("/")):
            continue
        if not _DATA.search(below):
            ignored += 1
            continue
        path = info.path
        if "://" in source:
            parts = urlsplit(source)
            path = urlunsplit(parts._replace(path=posixpath.join(parts.path or "/", quote(below))))
        name = posixpath.join(source, below)
        files.append(SourceFile(name, path, f"{info.size}|{info.mtime_ns}"))
    if not files:
        raise SourceError(f"folder {source} has no .json, .jsonl, .ndjson or .parquet file: name the data")
    return files, ignored


def read_source(file: SourceFile, columns: Columns) -> Iterator[Record]:
    """Yield the rows of one file in order, whatever is wrong with some of them.

    Raises:
        StoreError: an object store does not give the file; what it holds is not to pass for damaged.
    """
    split = split_of_name(file.name)
    try:
        for number, value in _values(file, columns):
            location = f"{file.name}:{number}" if number else file.name
            if isinstance(value, Damage):
                yield Record(number, location, None, value.reason)
            elif isinstance(value, Mapping):
                yield Record(number, location, columns.read(value, split))
            else:
                kind = "null" if value is None else type(value).__name__
                reason = f"no row: a {kind} stands where an object with the row's columns should"
                yield Record(number, location, None, reason)
    except StoreError:
        raise
    except (OSError, RunError, pa.ArrowException) as error:
        detail = (str(error) or type(error).__name__).split("\n")[0][:200]
        reason = f"unreadable file: {detail}; copy it again"
        yield Record(0, file.name, None, reason)


def _values(file: SourceFile, columns: Columns) -> Iterator[tuple[int, object]]:
    filesystem, inner = open_path(file.path)
    with _stream(filesystem, inner, packed=False) as stream:
        packed = stream.read(2) == _GZIP
    with _stream(filesystem, inner, packed) as stream:
        head = b""
        with suppress(OSError):  # what is wrong further on is told when reading gets there
            while len(head) < _HEAD and (piece := stream.read(_HEAD - len(head))):
                head += piece
    if head[:4] == b"PAR1":
        yield from _parquet_rows(filesystem, inner, packed)
        return
    shape = _shape(head, bool(_LINES.search(file.name)))
    if shape is None:
        yield 0, Damage(_no_rows(head))
        return
    with _stream(filesystem, inner, packed) as stream:
        text = TextStream(stream, encoding_of(head))
        if shape == "lines":
            yield from read_lines(text)
        else:
            yield from read_values(text, shape == "array", columns.is_row)


@contextmanager
def _stream(filesystem: pafs.FileSystem, inner: str, packed: bool) -> Iterator[ByteStream]:
    with _bytes(filesystem, inner) as stream:
        yield Gunzip(stream) if packed else stream


def _bytes(filesystem: pafs.FileSystem, inner: str) -> Any:
    if is_object_store(filesystem):
        return open_ranges(filesystem, inner)
    return filesystem.open_input_stream(inner, compression=None)


def _parquet_rows(filesystem: pafs.FileSystem, inner: str, packed: bool) -> Iterator[tuple[int, object]]:
    if not packed and is_object_store(filesystem):
        with _bytes(filesystem, inner) as stream, closing(pa.PythonFile(stream, mode="r")) as whole:
            yield from read_rows(whole)
        return
    if not packed:
        with filesystem.open_input_file(inner) as whole:
            yield from read_rows(whole)
        return
    # Parquet is read from its end, which gzip cannot give.
    with tempfile.TemporaryFile() as unpacked:
        with _stream(filesystem, inner, packed) as stream:
            while piece := stream.read(1 << 20):
                unpacked.write(piece)
        unpacked.seek(0)
        with closing(pa.PythonFile(unpacked, mode="r")) as whole:
            yield from read_rows(whole)


def _shape(head: bytes, named_lines: bool) -> str | None:
    """Tell an array, lines and bare values apart by the first bytes; None where there is no JSON."""
    text = head.decode(encoding_of(head), errors="replace").lstrip("\ufeff \t\r\n")
    if text.startswith("["):
        return "array"
    if _has_whole_line(text) or (text.startswith("{") and named_lines):
        return "lines"
    if not text.startswith("{"):
        return None
    # One line that goes on beyond the head is a line; many that are no values are one spread-out value.
    return "lines" if "\n" not in text.rstrip() else "values"


def _has_whole_line(text: str) -> bool:
    for line in text.split("\n")[:200]:
        try:
            if isinstance(json.loads(line), dict):
                return True
        except (ValueError, RecursionError):
            continue
    return False


def _no_rows(head: bytes) -> str:
    if not head.strip():
        return "empty file: it has no rows"
    return f"not a data set: it looks like {looks_like(head)}; give a JSON array, JSON Lines or Parquet"
