"""The partitions of a run: their files listed once, their status, and a parallel map over them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from caslie_ray.captioning._ledger import KEPT
from caslie_ray.captioning._partition_status import PartitionStatus, partition_status, quick_status
from caslie_ray.cluster.distribution import is_large
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.errors import RunError
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.run import Run

__all__ = ["Partitions"]

# Views from which starting Ray pays off.
_DISTRIBUTE_FROM = 20_000
# Threads that read completion markers; they are bound by the store's latency.
_THREADS = 16


class Partitions:
    """The partitions of a run's views.

    Args:
        run: the run.
        lineup: the models whose answers are listed.

    Raises:
        RunError: the run has no views, or its captions have another number of partition digits.
    """

    def __init__(self, run: Run, lineup: ResolvedLineup) -> None:
        self._run = run
        self._lineup = lineup
        files = run.files("views")
        if not files:
            raise RunError(f"{run.label} has no views: run ingest first")
        self.names = sorted({run.partition(path) for path in files})
        self._check_digits()

    def _check_digits(self) -> None:
        expected = {len(name) for name in self.names if name != "all"}
        stored = {len(self._run.partition(path)) for path in self._run.files("captions")}
        if expected and stored and stored != expected:
            raise RunError(
                f"the captions of {self._run.label} are partitioned by {max(stored)} digits of the image id and its"
                f" views by {max(expected)}: set storage.partition_digits={max(stored)} and run ingest again, or use"
                " another run"
            )

    def files(self, names: Sequence[str]) -> list[dict[str, list[str]]]:
        """Return the files of each partition by table; each table is listed once, not once per partition."""
        tables = ["views", "images", "captions", KEPT, *(role.answers for role in self._lineup.roles)]
        listed = {table: self._run.by_partition(table) for table in tables}
        return [{table: files.get(name, []) for table, files in listed.items()} for name in names]

    def survey(self, retry: Collection[str], names: Sequence[str] | None = None) -> list[PartitionStatus]:
        """Return the status of the named partitions, or of all.

        Finished and unstarted partitions are handled in this process, which is faster than starting Ray.

        Args:
            retry: names of the models whose retryable failures count as missing.
            names: the partitions; None for all.
        """
        names = names or self.names

        def look(part: tuple[str, dict[str, list[str]]]) -> PartitionStatus | None:
            name, files = part
            return quick_status(self._run.with_file_listing(files), name, self._lineup)

        with ThreadPoolExecutor(_THREADS) as threads:
            quick = dict(zip(names, threads.map(look, zip(names, self.files(names), strict=True)), strict=True))
        # Arrow would keep the memory that the threads freed: some 10 MiB per thread.
        pa.default_memory_pool().release_unused()
        read = functools.partial(partition_status, lineup=self._lineup, retry=frozenset(retry))
        unfinished = self.map(read, [name for name in names if quick[name] is None])
        return [*filter(None, quick.values()), *unfinished]

    @functools.cached_property
    def are_large(self) -> bool:
        """Whether the run has so many views that starting Ray for them pays off."""
        return is_large(self._run, self._run.files("views"), _DISTRIBUTE_FROM)

    def map(
        self, function: Callable[[Run, str], Any], names: Sequence[str], *, in_tasks: bool | None = None
    ) -> Iterator[Any]:
        """Yield ``function(run, partition)`` for every partition, in no fixed order.

        Args:
            function: its result is sent to the driver.
            names: the partitions.
            in_tasks: whether it runs in Ray tasks; None: if these partitions have many views.
        """
        run = self._run
        if not names:
            return iter(())

        def call(part: tuple[str, dict[str, list[str]]]) -> Any:
            name, files = part
            return function(run.with_file_listing(files), name)

        parts = list(zip(names, self.files(names), strict=True))
        views = (path for _, files in parts for path in files["views"])
        distributed = is_large(run, views, _DISTRIBUTE_FROM) if in_tasks is None else in_tasks
        return map_partitions(call, parts, distributed=distributed)
