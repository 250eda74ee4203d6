"""New processes without Ray, which end with the process that started them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

__all__ = ["fresh_processes"]


@contextmanager
def fresh_processes(
    count: int, initializer: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """Return a pool of spawned processes; an error or interrupt in this process kills them.

    Args:
        count: number of processes.
        initializer: called at the start of each process.
        arguments: arguments of the initializer.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=initializer, initargs=arguments) as pool:
        try:
            yield pool
        except BaseException:
            # The pool would wait until they have finished.
            for child in multiprocessing.active_children():
                child.kill()
            raise
