"""Models and stores for tests of the ledger, and helpers for its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]  # it has none

from caslie_ray.engines import Choice, Generation
from caslie_ray.storage.run import Run

__all__ = ["CountingStore", "KeyedAnswers", "RefusingStore", "drop_answers", "partitions", "rewritten"]


class KeyedAnswers:
    """An `Ask` without a model: a caption is derived from its key, a vote from the key's first digit."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def generate(self, role: Any, requests: Any) -> list[Generation]:
        self.calls[role.name] = self.calls.get(role.name, 0) + len(requests)
        return [Generation(request.key, f"caption {request.key}", 5, 3, False) for request in requests]

    def choose(self, role: Any, requests: Any, choices: Any) -> list[Choice]:
        self.calls[role.name] = self.calls.get(role.name, 0) + len(requests)
        share = [int(request.key[0], 16) / 15 for request in requests]
        return [Choice(one.key, (p, 1 - p), 5, False) for one, p in zip(requests, share, strict=True)]


class RefusingStore(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store that lists a file and refuses to open it."""

    refused = ""

    def _open(self, path: str, *options: Any, **more: Any) -> Any:
        if path == self.refused:
            raise OSError("slow down")
        return super()._open(path, *options, **more)


class CountingStore(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store that counts bytes read and folders listed."""

    read = 0
    listed = 0

    def _open(self, path: str, *options: Any, **more: Any) -> Any:
        file = super()._open(path, *options, **more)
        plain = file.read

        def read(*size: int) -> bytes:
            data: bytes = plain(*size)
            self.read += len(data)
            return data

        file.read = read
        return file

    def find(self, *options: Any, **more: Any) -> Any:
        self.listed += 1
        return super().find(*options, **more)


def partitions(run: Run) -> list[str]:
    """Return the partitions of a run's views."""
    return sorted({run.partition(path) for path in run.files("views")})


def rewritten(path: str, **columns: pa.Array) -> None:
    """Replace columns of a file; its footer is kept."""
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, path)


def drop_answers(run: Run) -> None:
    """Leave answers in `captions` only, as versions before 0.2 did."""
    shutil.rmtree(Path(run.root) / "answers", ignore_errors=True)
