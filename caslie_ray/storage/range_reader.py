"""Reading a file of an object store by byte ranges, each with retries."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow.fs as pafs

from caslie_ray.storage.retries import DEFAULT_RETRIES, RetryPolicy, with_retries

__all__ = ["open_ranges"]

_T = TypeVar("_T")

_RANGE = 8 << 20


def open_ranges(
    filesystem: pafs.FileSystem, path: str, retry_policy: RetryPolicy = DEFAULT_RETRIES, buffer: int = _RANGE
) -> io.BufferedReader:
    """Open a file so that a failed read in the middle of it is repeated, see `with_retries`.

    Args:
        filesystem: the object store.
        path: the file.
        retry_policy: how long to retry.
        buffer: minimum bytes per request.

    Raises:
        StoreError: the store does not answer in time, or refuses; reading raises it too.
        OSError: the file does not exist.
    """
    return io.BufferedReader(_RangeReader(filesystem, path, retry_policy), buffer)


class _RangeReader(io.RawIOBase):
    """Each read is a request of its own."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, retry_policy: RetryPolicy) -> None:
        self._where = (filesystem, "read", path)
        self._retry_policy = retry_policy
        self._file = self._retried(lambda: filesystem.open_input_file(path))
        self._size = int(self._retried(lambda: self._file.size()))
        self._at = 0

    def _retried(self, action: Callable[[], _T]) -> _T:
        return with_retries(*self._where, action, self._retry_policy)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        data: bytes = self._retried(lambda: self._file.read_at(length, self._at)) if length else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()
