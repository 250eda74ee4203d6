"""A run: the directory or object-store URI that holds every table of one piece of work.

The files are the ledger. A table is the folder ``RUN/<name>/`` of Parquet files; a file is named after its
partition, ``<partition>.parquet`` or ``<partition>-<what>.parquet``, so that writing the same part again
overwrites it. Files appear whole or not at all.

A job that holds the run adds its epoch to these names, as ``<partition>-<what>-e<epoch>.parquet``, and checks before
each write and each delete that no later job has taken the run over; see `caslie_ray.storage.lease_files`. What it
replaces of former jobs it deletes after it has written.
"""

from __future__ import annotations

import json
import logging
import posixpath
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from caslie_ray.errors import RunError, RunLost, StoreError
from caslie_ray.hashing import content_id
from caslie_ray.storage.lease_files import LEASE, Fence, LeaseFiles, epoch_name, epoch_of, lease_path, without_epoch
from caslie_ray.storage.local_files import local_path, replace_file
from caslie_ray.storage.salvage import DAMAGED, DamagedFile, mend_for, mismatches
from caslie_ray.storage.schemas import ANSWERS, IDS, SCHEMAS
from caslie_ray.storage.stores import ABOUT_A_MINUTE, Patience, brief, is_object_store, open_path, patiently, public_uri

__all__ = ["Run", "RunError", "RunLost", "StoreError", "open_path", "open_run", "partition_of", "partitions"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_ROW_GROUP = 1024
_MOVE_AWAY = "move the file to another folder and run the job that wrote it again"
# A block of views reads its own pictures, and little else.
_PICTURES = 64


def open_run(path: str, patience: Patience = ABOUT_A_MINUTE) -> Run:
    """Open a run by its path or URI; nothing is created before the first write.

    Args:
        path: where it lives.
        patience: how long an object store that does not answer is asked again.

    Raises:
        RunError: there is no such kind of store, or its address cannot be read.
    """
    filesystem, root = open_path(path)
    return Run(filesystem, root.rstrip("/"), path, patience)


def partition_of(image_id: str, digits: int) -> str:
    """Return the partition of an id: its first `digits` hexadecimal digits."""
    return image_id[:digits] if digits else "all"


def partitions(digits: int) -> list[str]:
    """Return the names of all ``16 ** digits`` partitions."""
    return [format(n, f"0{digits}x") for n in range(16**digits)] if digits else ["all"]


@dataclass(frozen=True)
class Run:
    """The tables of one run.

    All methods are patient with an object store that does not answer, and raise StoreError where it goes on, or
    refuses. What goes to `fs` by another way goes through `patiently`.

    Attributes:
        fs: where it lives.
        root: its path on `fs`.
        uri: how the user named it.
        patience: how long it is asked again while it does not answer.
        known: files of one partition by table, oldest first, listed before; see `knowing`.
        borrowed: the root of the run that a table is read from, where it is not this one; see `borrowing`.
        fence: the lease that its writers work under; None where nobody holds the run for them.
        leased: the root whose lease it is under, where it is not its own; see `below`.
    """

    fs: pafs.FileSystem
    root: str
    uri: str = field(repr=False)
    patience: Patience = field(default=ABOUT_A_MINUTE, compare=False, repr=False)
    known: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False, repr=False)
    borrowed: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    fence: Fence | None = field(default=None, compare=False, repr=False)
    leased: str = field(default="", compare=False, repr=False)

    def path(self, *parts: str) -> str:
        """Return a path inside the run."""
        return posixpath.join(self.root, *parts)

    def below(self, name: str) -> Run:
        """Return the run, or other folder, that lies in this one under a name."""
        head, mark, query = self.uri.partition("?")
        uri = f"{head.rstrip('/')}/{name}{mark}{query}"
        return replace(self, root=self.path(name), uri=uri, known={}, borrowed={}, leased=self.leased or self.root)

    def borrowing(self, tables: Iterable[str], other: Run) -> Run:
        """Return this run with some tables read from another one on the same store; it must not write these."""
        return replace(self, borrowed=dict.fromkeys(tables, other.root))

    def patiently(self, verb: str, path: str, action: Callable[[], _T]) -> _T:
        """Return what an action on the run's store returns; see `caslie_ray.storage.stores.patiently`.

        Raises:
            StoreError: the store or the system refuses, or does not answer.
            OSError, pa.ArrowException: what else the action raises.
        """
        try:
            return patiently(self.fs, verb, path, action, self.patience)
        except OSError as error:
            # Without a number it is Arrow that tells what it found in a file.
            if error.errno is None or isinstance(error, FileNotFoundError):
                raise
            raise StoreError(
                f"cannot {verb} {path}: {brief(error)}; mend that and run the same command again"
            ) from error

    def info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        """Return what the store says of paths, in order; those that are not there are of type NotFound."""
        if not paths:
            return []
        found: list[pafs.FileInfo] = self.patiently("look up", paths[0], lambda: self.fs.get_file_info(list(paths)))
        return found

    def listed(self, folder: str) -> list[pafs.FileInfo]:
        """Return what the store says of all that lies right in a folder; nothing where there is none."""
        selector = pafs.FileSelector(folder, allow_not_found=True)
        found: list[pafs.FileInfo] = self.patiently("list", folder, lambda: self.fs.get_file_info(selector))
        return found

    @property
    def label(self) -> str:
        """The URI without what may be secret in it, keys and options: fit for a page that is passed on."""
        return public_uri(self.uri)

    def files(self, table: str, partition: str | None = None) -> list[str]:
        """Return a table's files, oldest first; those of one partition where it is named."""
        if partition is not None and table in self.known:
            return [path for path in self.known[table] if self.partition(path) == partition]
        folder = posixpath.join(self.borrowed.get(table, self.root), table)
        found = [
            info
            for info in self.listed(folder)
            if info.type == pafs.FileType.File and info.base_name.endswith(".parquet")
        ]
        if partition is not None:
            found = [info for info in found if self.partition(info.base_name) == partition]
        found = self._without_late(found)
        # Stores that count whole seconds show the writes of two epochs as simultaneous.
        found.sort(key=lambda info: (info.mtime_ns or 0, epoch_of(info.base_name) or 0, info.path))
        return [info.path for info in found]

    def _without_late(self, files: list[pafs.FileInfo]) -> list[pafs.FileInfo]:
        """Leave out files that a former job wrote after the run had been taken over from it."""
        own = self.fence.epoch if self.fence is not None else None
        if all(epoch_of(info.base_name) in (None, own) for info in files):
            return files
        if self.fence is not None:
            takeovers = self.fence.takeovers
        else:
            takeovers = LeaseFiles.of(self.listed(self.lease_folder)).takeovers()

        def is_late(info: pafs.FileInfo) -> bool:
            taken = takeovers.get(epoch_of(info.base_name) or 0)
            return taken is not None and (info.mtime_ns or 0) >= taken

        return [info for info in files if not is_late(info)]

    def by_partition(self, table: str) -> dict[str, list[str]]:
        """Return a table's files by partition, oldest first; the table is listed once."""
        found: dict[str, list[str]] = {}
        for path in self.files(table):
            found.setdefault(self.partition(path), []).append(path)
        return found

    def knowing(self, files: Mapping[str, Sequence[str]]) -> Run:
        """Return this run with the files of a partition known by table, so that these tables are not listed again."""
        return replace(self, known=files)

    @staticmethod
    def partition(path: str) -> str:
        """Return the partition that a file belongs to."""
        return posixpath.basename(path).removesuffix(".parquet").split("-", 1)[0]

    @staticmethod
    def stem(path: str) -> str:
        """Return what a table's file was written as: its name without its epoch."""
        return without_epoch(path)

    def table_path(self, table: str, stem: str) -> str:
        """Return the path under which this run writes a table's file."""
        return self.path(table, epoch_name(stem, self.fence.epoch if self.fence is not None else None))

    @property
    def lease_folder(self) -> str:
        """The folder that says which job holds the run."""
        return posixpath.join(self.leased or self.root, LEASE)

    def check_lease(self) -> None:
        """Make sure that no other job has taken the run over; what is done without a lease is not checked.

        Raises:
            RunLost: one has.
        """
        if self.fence is None:
            return
        claim = lease_path(self.lease_folder, self.fence.epoch + 1, "json")
        if self.info([claim])[0].type != pafs.FileType.NotFound:
            raise RunLost(f"another job has taken over {self.label} ({claim}): this one writes and deletes no more")

    def write(
        self,
        table: str,
        stem: str,
        rows: pa.Table,
        schema: pa.Schema | None = None,
        note: Mapping[str, str] | None = None,
    ) -> str:
        """Write ``RUN/<table>/<stem>.parquet`` whole, over whatever stood there; return its path.

        Under a lease the name ends in the epoch; who replaces files of former epochs deletes them after writing.

        Args:
            table: its name.
            stem: the partition, or ``<partition>-<what>``.
            rows: the rows.
            schema: of a table that `SCHEMAS` does not hold.
            note: kept in the file's footer, where `note_of` finds it without reading rows.

        Raises:
            RunError: the rows do not fit the table's schema, or the store refused the file.
            RunLost: another job has taken the run over.
        """
        schema = schema or SCHEMAS[table]
        try:
            rows = rows.select(schema.names).cast(schema)
        except (KeyError, pa.ArrowException) as error:
            raise RunError(f"rows do not fit table {table!r}: {brief(error)}") from error
        rows = rows.replace_schema_metadata(dict(note) if note else None)
        # Pictures are compressed already.
        codec = {name: "none" if name == "image" else "zstd" for name in schema.names}
        sink = pa.BufferOutputStream()
        pq.write_table(
            rows, sink, compression=codec, row_group_size=_PICTURES if "image" in schema.names else _ROW_GROUP
        )
        path = self.table_path(table, stem)
        self.put(path, sink.getvalue())
        return path

    def put(self, path: str, data: pa.Buffer | bytes) -> None:
        """Write a file atomically; on disks it also survives a power cut.

        Raises:
            RunError: the store is full or refuses.
            RunLost: another job has taken the run over.
        """
        self.check_lease()
        if is_object_store(self.fs):
            whole = memoryview(data)
            self.patiently("write", path, lambda: self._put_object(path, whole))
            return
        try:
            if (local := local_path(self.fs, path)) is not None:
                replace_file(local, data)
            else:
                self._put_and_move(path, data)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {brief(error)}; nothing of it was kept, mend that and run again"
            ) from error

    def _put_and_move(self, path: str, data: pa.Buffer | bytes) -> None:
        folder, name = posixpath.split(path)
        self.fs.create_dir(folder, recursive=True)
        temporary = posixpath.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        try:
            with self.fs.open_output_stream(temporary) as stream:
                stream.write(data)
            self.fs.move(temporary, path)
        except BaseException:
            # SIGTERM too may fall in between.
            self._delete(temporary)
            raise

    def _put_object(self, path: str, data: memoryview) -> None:
        failures: list[BaseException] = []
        done = threading.Event()

        def put() -> None:
            try:
                with self.fs.open_output_stream(path, compression=None) as stream:
                    stream.write(data)
            except BaseException as error:
                failures.append(error)
            finally:
                done.set()

        # An interrupted stream would put what it has so far. Python delivers signals to the main thread alone. Its
        # join() takes a thread for ended that is not, where a signal interrupts it: hence the event.
        aside = threading.Thread(target=put, name="put")
        try:
            aside.start()
            done.wait()
        except BaseException:
            if aside.ident is not None:
                done.wait()
            raise
        if failures:
            raise failures[0]

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files; those already gone are no error.

        Raises:
            RunLost: another job has taken the run over.
        """
        for path in paths:
            self.check_lease()
            self.patiently("delete", path, lambda path=path: self._delete(path))  # type: ignore[misc]  # bound here

    def _delete(self, path: str) -> None:
        if self.fs.get_file_info(path).type != pafs.FileType.NotFound:
            with suppress(FileNotFoundError):  # a late writer was quicker
                self.fs.delete_file(path)

    def delete_folder(self, path: str) -> None:
        """Delete a folder with all that is in it; one already gone is no error.

        Raises:
            RunLost: another job has taken the run over.
        """
        self.check_lease()

        def delete() -> None:
            with suppress(FileNotFoundError):
                self.fs.delete_dir(path)

        self.patiently("delete", path, delete)

    def read_bytes(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            RunError: it is not there, or the store does not give it.
        """

        def read() -> bytes:
            with self.fs.open_input_stream(path, compression=None) as stream:
                data: bytes = stream.read()
            return data

        try:
            return self.patiently("read", path, read)
        except OSError as error:
            raise RunError(f"cannot read {path}: {brief(error)}; mend that and run the same command again") from error

    def read_file(
        self, path: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """Read one Parquet file, or the rows of it that an expression takes; row groups without any are skipped.

        In a file of a declared table, a declared column that the file lacks reads as null: the column was added
        after the file was written.

        Raises:
            StoreError: the store does not give it, memory is short, or pyarrow cannot read such files.
            DamagedFile: it is incomplete, or lacks a column that names its rows.
        """
        schema = self.schema_of(path)

        def read() -> pa.Table:
            rows = pq.read_table(
                path, columns=columns, filesystem=self.fs, partitioning=None, filters=where, schema=schema
            )
            if schema is not None:
                _refuse_rows_without_ids(rows, posixpath.basename(posixpath.dirname(path)))
            return rows

        return self._whole(path, read)

    def schema_of(self, path: str) -> pa.Schema | None:
        """Return the declared schema of the table that a file of this run belongs to; None where there is none."""
        folder, table = posixpath.split(posixpath.dirname(path))
        if folder.strip("/") == self.path("answers").strip("/"):
            return ANSWERS
        roots = {root.strip("/") for root in (self.root, *self.borrowed.values())}
        return SCHEMAS.get(table) if folder.strip("/") in roots else None

    def count_rows(self, path: str) -> int:
        """Return the rows of one Parquet file, from its footer.

        Raises:
            RunError: it is not whole.
        """
        return int(self._footer(path).num_rows)

    def _footer(self, path: str) -> pq.FileMetaData:
        return self._whole(path, lambda: pq.read_metadata(path, filesystem=self.fs))

    def _whole(self, path: str, read: Callable[[], _T]) -> _T:
        """Read a file; distinguish a damaged one, or one with a wrong column type, from one that cannot be read here.

        Raises:
            DamagedFile: the file is damaged, or a column has a type that cannot be converted.
            StoreError: the store fails, memory is short, or this version of Arrow lacks what the file needs.
        """
        try:
            return self.patiently("read", path, read)
        except MemoryError as error:  # also Arrow's
            # A damaged length in a file may ask for any amount.
            mend = f"give the job more memory; if the error stays, {_MOVE_AWAY}"
            raise StoreError(f"cannot read {path}: {brief(error)}; {mend}") from error
        except (pa.ArrowException, OSError) as error:
            wrong = self._mismatches(path)
            if isinstance(error, pa.ArrowNotImplementedError) and not wrong:
                mend = f"use the pyarrow version that wrote it, or {_MOVE_AWAY}"
                raise StoreError(f"cannot read {path}: {brief(error)}; {mend}") from error
            mend = mend_for(path, noticed=wrong is None or bool(wrong))
            message = f"cannot read {path}: {'; '.join([*(wrong or ()), brief(error)])}; {mend}"
            raise DamagedFile(message, path) from error

    def _mismatches(self, path: str) -> list[str] | None:
        """The columns of a file whose type is not the declared one; None where its footer cannot be read."""
        try:
            found = pq.read_schema(path, filesystem=self.fs)
        except (pa.ArrowException, OSError):
            return None
        schema = self.schema_of(path)
        return [] if schema is None else mismatches(found, schema)

    def keep_copy(self, path: str) -> str | None:
        """Copy a damaged file into the folder `damaged` of the run; return where, or None where it is empty or gone.

        Raises:
            RunError: the store refuses.
        """
        if not self.info([path])[0].is_file or not (data := self.read_bytes(path)):
            return None
        stem, mark, ending = path.removeprefix(f"{self.root}/").rpartition(".")
        kept = self.path(DAMAGED, f"{stem}-{content_id(data)[:8]}{mark}{ending}")
        self.put(kept, data)
        log.warning("%s is damaged and is replaced; a copy is in %s", path, kept)
        return kept

    def keep_folder(self, name: str) -> str:
        """Copy a folder of the run into its folder `damaged`; return where.

        Raises:
            RunError: the store refuses.
        """
        folder, kept = self.path(name), self.path(DAMAGED, name)
        selector = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
        found: list[pafs.FileInfo] = self.patiently("list", folder, lambda: self.fs.get_file_info(selector))
        for path in (info.path for info in found if info.is_file):
            self.put(posixpath.join(kept, posixpath.relpath(path, folder)), self.read_bytes(path))
        return kept

    def note_of(self, path: str) -> dict[str, str]:
        """Return what was noted in a Parquet file's footer as it was written.

        Nothing, where a column has another type than the declared one: the file was rewritten by somebody else.

        Raises:
            RunError: it is not whole.
        """
        footer, schema = self._footer(path), self.schema_of(path)
        if schema is not None and mismatches(footer.schema.to_arrow_schema(), schema):
            return {}
        metadata = footer.metadata or {}
        return {key.decode(): value.decode() for key, value in metadata.items() if key != b"ARROW:schema"}

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        partition: str | None = None,
    ) -> pa.Table:
        """Read a table, or one partition of it: one row an id, the last written where writers overlapped.

        Args:
            table: its name.
            columns: the columns to return; all where None.
            partition: the partition to read; all where None.

        Raises:
            RunError: a file is not whole.
        """
        schema = SCHEMAS[table]
        wanted = list(columns) if columns is not None else schema.names
        ids = list(IDS[table])
        needed = [name for name in schema.names if name in {*wanted, *ids}]
        parts = [self.read_file(path, needed) for path in self.files(table, partition)]
        whole = pa.schema([schema.field(name) for name in needed])
        rows = pa.concat_tables([part.cast(whole) for part in parts]) if parts else whole.empty_table()
        return last_of_each(rows, ids).select(wanted)

    def write_json(self, path: str, value: Any) -> None:
        """Write ``RUN/<path>`` as indented JSON."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.put(self.path(path), text.encode() + b"\n")

    def read_json(self, path: str) -> Any:
        """Read ``RUN/<path>``; None where there is no such file.

        Raises:
            DamagedFile: it is not JSON.
        """
        if self.info([self.path(path)])[0].type == pafs.FileType.NotFound:
            return None
        text = self.read_bytes(self.path(path))
        try:
            return json.loads(text)
        except ValueError as error:
            message = f"cannot read {self.path(path)}: {brief(error)}; {mend_for(path)}"
            raise DamagedFile(message, self.path(path)) from error


def _refuse_rows_without_ids(rows: pa.Table, table: str) -> None:
    """Refuse rows whose ids were read: a file without them is damaged, not older than a column."""
    for name in IDS.get(table, ("key",)):
        if rows.num_rows and name in rows.column_names and rows[name].null_count == rows.num_rows:
            raise pa.ArrowInvalid(f"column {name} holds no value")


def last_of_each(rows: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Keep the last row of each id, in the order in which the kept rows stand."""
    if not ids or rows.num_rows < 2:
        return rows
    numbered = rows.select(ids).append_column("row", pa.array(range(rows.num_rows), pa.int64()))
    last = numbered.group_by(list(ids)).aggregate([("row", "max")])["row_max"]
    if len(last) == rows.num_rows:
        return rows
    return rows.take(last.take(pc.sort_indices(last)))
