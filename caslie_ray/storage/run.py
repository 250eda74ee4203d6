"""A run: the directory or object-store URI with all tables of one piece of work.

The files are the ledger. A table is the folder ``RUN/<name>/`` of Parquet files. A file is named after its partition,
``<partition>.parquet`` or ``<partition>-<what>.parquet``, so writing the same part again overwrites it. Writes are
atomic.

A job that holds the lease adds its epoch to these names, as in ``<partition>-<what>-e<epoch>.parquet``, and checks
before each write and delete that no later job has taken over the run; see `caslie_ray.storage.lease_files`. After
writing, it deletes the files of former epochs that it replaces.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.storage._folder import Folder
from caslie_ray.storage._parquet import encode, note_in_footer, read_footer, read_rows
from caslie_ray.storage._table_files import table_files
from caslie_ray.storage.filesystems import open_path
from caslie_ray.storage.latest_rows import latest_rows
from caslie_ray.storage.lease_files import LeaseFiles, epoch_name, without_epoch
from caslie_ray.storage.partitions import partition_of_file
from caslie_ray.storage.retries import DEFAULT_RETRIES, RetryPolicy
from caslie_ray.storage.schemas import ANSWERS, IDS, SCHEMAS

__all__ = ["Run", "open_run"]


def open_run(path: str, retry_policy: RetryPolicy = DEFAULT_RETRIES) -> Run:
    """Open a run by its path or URI; nothing is created before the first write.

    Args:
        path: of the run.
        retry_policy: how long to retry while an object store does not answer.

    Raises:
        RunError: the URI's scheme is unknown, or it cannot be parsed.
    """
    filesystem, root = open_path(path)
    return Run(filesystem, root.rstrip("/"), path, retry_policy)


@dataclass(frozen=True)
class Run(Folder):
    """The tables of one run.

    Attributes:
        file_listing: files of one partition by table, oldest first; see `with_file_listing`.
        shared_roots: the root of the run that a table is read from, if not this one; see `with_shared_tables`.
    """

    file_listing: Mapping[str, Sequence[str]] = field(default_factory=dict, compare=False, repr=False)
    shared_roots: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def below(self, name: str) -> Run:
        """Return the run, or other folder, inside this one; it is under the same lease."""
        head, mark, query = self.uri.partition("?")
        uri = f"{head.rstrip('/')}/{name}{mark}{query}"
        lease_root = self.lease_root or self.root
        return replace(self, root=self.path(name), uri=uri, file_listing={}, shared_roots={}, lease_root=lease_root)

    def with_shared_tables(self, tables: Iterable[str], other: Run) -> Run:
        """Return this run with some tables read from another run on the same store; do not write these."""
        return replace(self, shared_roots=dict.fromkeys(tables, other.root))

    def with_file_listing(self, files: Mapping[str, Sequence[str]]) -> Run:
        """Return this run with the files of one partition given by table, so that these tables are not listed again."""
        return replace(self, file_listing=files)

    @staticmethod
    def partition(path: str) -> str:
        """Return the partition that a table's file belongs to."""
        return partition_of_file(path)

    @staticmethod
    def stem(path: str) -> str:
        """Return the name under which a table's file was written: without folder, epoch and extension."""
        return without_epoch(path)

    def table_path(self, table: str, stem: str) -> str:
        """Return the path to which this run writes a table's file."""
        return self.path(table, epoch_name(stem, self.fence.epoch if self.fence is not None else None))

    def files(self, table: str, partition: str | None = None) -> list[str]:
        """Return a table's files, oldest first; only those of one partition if it is given."""
        if partition is not None and table in self.file_listing:
            return [path for path in self.file_listing[table] if self.partition(path) == partition]
        infos = self.listed(posixpath.join(self.shared_roots.get(table, self.root), table))
        if partition is not None:
            infos = [info for info in infos if self.partition(info.base_name) == partition]
        return table_files(infos, self.fence, lambda: LeaseFiles.of(self.listed(self.lease_folder)).takeovers())

    def by_partition(self, table: str) -> dict[str, list[str]]:
        """Return a table's files by partition, oldest first, from one listing."""
        found: dict[str, list[str]] = {}
        for path in self.files(table):
            found.setdefault(self.partition(path), []).append(path)
        return found

    def schema_of(self, path: str) -> pa.Schema | None:
        """Return the declared schema of the table that a file belongs to; None if it is in no declared table."""
        folder, table = posixpath.split(posixpath.dirname(path))
        if folder.strip("/") == self.path("answers").strip("/"):
            return ANSWERS
        roots = {root.strip("/") for root in (self.root, *self.shared_roots.values())}
        return SCHEMAS.get(table) if folder.strip("/") in roots else None

    def write(
        self,
        table: str,
        stem: str,
        rows: pa.Table,
        schema: pa.Schema | None = None,
        note: Mapping[str, str] | None = None,
    ) -> str:
        """Write ``RUN/<table>/<stem>.parquet`` atomically, replacing an old file, and return its path.

        Under a lease the name ends in the epoch; who replaces files of former epochs deletes them after writing.

        Args:
            table: its name.
            stem: the partition, or ``<partition>-<what>``.
            rows: the rows.
            schema: for a table that is not in `SCHEMAS`.
            note: metadata for the file's footer, see `note_of`.

        Raises:
            RunError: the rows do not fit the schema, or the store refuses the file.
            RunLost: another job has taken over the run.
        """
        path = self.table_path(table, stem)
        self.put(path, encode(table, rows, schema or SCHEMAS[table], note))
        return path

    def read_file(
        self, path: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None
    ) -> pa.Table:
        """Read one Parquet file, or the rows of it that match an expression; row groups without any are skipped.

        In a declared table, a declared column that the file lacks is null: it was added after the file was written.

        Raises:
            StoreError: the store does not return it, memory is short, or this pyarrow cannot read such files.
            DamagedFile: it is incomplete, or lacks a column that names its rows.
        """
        ids = IDS.get(posixpath.basename(posixpath.dirname(path)), ("key",))
        return read_rows(self, path, self.schema_of(path), ids, columns, where)

    def count_rows(self, path: str) -> int:
        """Return the number of rows of a Parquet file, from its footer.

        Raises:
            RunError: it is incomplete, or the store does not return it.
        """
        return int(read_footer(self, path, self.schema_of(path)).num_rows)

    def note_of(self, path: str) -> dict[str, str]:
        """Return the metadata that `write` put into a file's footer; empty if another program has rewritten the file.

        Raises:
            RunError: it is incomplete, or the store does not return it.
        """
        schema = self.schema_of(path)
        return note_in_footer(read_footer(self, path, schema), schema)

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        partition: str | None = None,
    ) -> pa.Table:
        """Read a table, or one partition of it: one row per id, the last one written.

        Args:
            table: its name.
            columns: the columns to return; None: all.
            partition: the partition to read; None: all.

        Raises:
            RunError: a file is incomplete, or the store does not return it.
        """
        schema = SCHEMAS[table]
        wanted = list(columns) if columns is not None else schema.names
        ids = list(IDS[table])
        needed = [name for name in schema.names if name in {*wanted, *ids}]
        parts = [self.read_file(path, needed) for path in self.files(table, partition)]
        whole = pa.schema([schema.field(name) for name in needed])
        rows = pa.concat_tables([part.cast(whole) for part in parts]) if parts else whole.empty_table()
        return latest_rows(rows, ids).select(wanted)
