"""Reads a run's partitions in Ray tasks, or in this process if the run is small."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from caslie_ray.cluster import distribution
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.storage.run import Run

__all__ = ["ChunkResult", "Partition", "is_large", "map_chunks", "partitions_of"]

_T = TypeVar("_T")

_TASKS = 256


class Partition(NamedTuple):
    """A partition with its files per table, so that tasks do not list the tables again."""

    name: str
    files: Mapping[str, Sequence[str]]

    def of(self, run: Run) -> Run:
        """Return the run with the partition's files already listed."""
        return run.with_file_listing(self.files)


def partitions_of(run: Run, tables: Sequence[str], optional: Sequence[str] = ()) -> list[Partition]:
    """Return the partitions of some tables, sorted by name; each table is listed once.

    Args:
        run: the run.
        tables: those whose partitions are returned.
        optional: tables whose files are listed too, for these partitions.
    """
    listed = {table: run.by_partition(table) for table in (*tables, *optional)}
    names = sorted({name for table in tables for name in listed[table]})
    return [Partition(name, {table: files.get(name, []) for table, files in listed.items()}) for name in names]


def is_large(run: Run, partitions: Sequence[Partition], table: str) -> bool:
    """Whether a table has so many rows that it is read in tasks; reads footers only until that is known."""
    return distribution.is_large(run, (path for partition in partitions for path in partition.files.get(table, ())))


class ChunkResult(NamedTuple, Generic[_T]):
    """What was read of consecutive partitions: the first one's name, their number, and the function's result."""

    first: str
    partitions: int
    result: _T


def map_chunks(
    function: Callable[[Sequence[Partition]], _T], partitions: Sequence[Partition], *, in_tasks: bool
) -> Iterator[ChunkResult[_T]]:
    """Yield the results of ``function(chunk)``, in no fixed order. Exceptions are raised here.

    Args:
        function: reads a chunk of partitions and returns counts, or a bounded number of rows.
        partitions: what is read.
        in_tasks: read in Ray tasks, up to 256 chunks; else in this process, as one chunk.
    """
    count = min(_TASKS if in_tasks else 1, len(partitions))
    chunks = [partitions[at * len(partitions) // count : (at + 1) * len(partitions) // count] for at in range(count)]

    def read(chunk: Sequence[Partition]) -> ChunkResult[_T]:
        return ChunkResult(chunk[0].name, len(chunk), function(chunk))

    yield from map_partitions(read, chunks, distributed=in_tasks)
