"""Merges partitions whose last row was written, while others are computed.

A job that is killed then finds most of its partitions merged: the next one reads their completion markers, not their
rows.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

__all__ = ["BackgroundMerge"]


class BackgroundMerge:
    """Counts the rows that are written, and merges partitions in a thread, as a context.

    Partitions that are complete when the context ends may be left unmerged.

    Args:
        merge: merges partitions; returns how many views of each still wait for a model.
        missing: rows that each partition lacks; others are never merged.
    """

    def __init__(self, merge: Callable[[list[str]], Mapping[str, int]], missing: Mapping[str, int]) -> None:
        self._merge = merge
        self._left = dict(missing)
        self._complete: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self.waiting: dict[str, int] = {}
        """Views that still wait for a model, by the name of a merged partition; known once the context has ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._complete.put(None)
        if kind is None:  # a job that is asked to end must not wait
            self._thread.join()
            self._raise()

    def wrote(self, partition: str, rows: int) -> None:
        """Count rows of a partition.

        Raises:
            Exception: what `merge` raised.
        """
        self._raise()
        if (before := self._left.get(partition, 0)) <= 0:
            return
        self._left[partition] = before - rows
        if self._left[partition] <= 0:
            self._complete.put(partition)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="merge", daemon=True)
                self._thread.start()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            names = [self._complete.get()]
            while not self._complete.empty():
                names.append(self._complete.get())
            if None in names:
                return
            try:
                self.waiting.update(self._merge([name for name in names if name is not None]))
            except Exception as error:
                self._error = error
                return
