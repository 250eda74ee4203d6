"""Processes that are started fresh, without Ray, and that end with the process that started them."""

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
    """Return a pool of processes that share no memory with this one; an error or an interrupt here kills them.

    Args:
        count: how many.
        initializer: called in each process, at its start.
        arguments: of the initializer.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=initializer, initargs=arguments) as pool:
        try:
            yield pool
        except BaseException:
            # The pool would wait until they have done their work.
            for child in multiprocessing.active_children():
                child.kill()
            raise
