"""Whether work is worth Ray: below some number of rows it runs in the driver, faster than Ray starts."""

from __future__ import annotations

from collections.abc import Iterable

from caslie_ray.storage.run import Run

__all__ = ["DISTRIBUTE_FROM", "is_large"]

DISTRIBUTE_FROM = 50_000
"""Rows from which work runs as Ray tasks. The same functions do it in either case."""


def is_large(run: Run, files: Iterable[str], least: int | None = None) -> bool:
    """Return whether Parquet files hold `least` rows together, by default `DISTRIBUTE_FROM`.

    Reads only as many footers as decide it.

    Raises:
        RunError: a file is damaged.
    """
    rows = 0
    for path in files:
        rows += run.count_rows(path)
        if rows >= (DISTRIBUTE_FROM if least is None else least):
            return True
    return False
