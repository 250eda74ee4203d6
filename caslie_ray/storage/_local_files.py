"""Atomic, durable writes on local and shared file systems.

They survive a power cut: the data is synced to disk before the name appears, then the folder is synced.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import pyarrow as pa

__all__ = ["create_file", "replace_file", "sync"]

_ATTEMPTS = 5


def replace_file(path: str, data: pa.Buffer | bytes | memoryview) -> None:
    """Write a file atomically.

    Raises:
        OSError: the disk is full, or the system refuses; the old content is kept.
    """
    with _temporary(path, data) as temporary:
        os.replace(temporary, path)
    sync(os.path.dirname(path))


def create_file(path: str, data: bytes, link: Callable[[str, str], None] = os.link) -> bool:
    """Create a file unless it exists; return whether this call created it.

    A hard link makes the name appear together with its content, and fails if the name exists. File systems without hard
    links get an exclusive open; there, readers may see the file before its content.

    Args:
        path: of the file.
        data: its content.
        link: creates the hard link.

    Raises:
        OSError: the system refuses.
    """
    with _temporary(path, data) as temporary:
        try:
            link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            # Over NFS the reply may be lost although the link was created.
            if os.stat(temporary).st_nlink < 2 and not _create_exclusively(path, data):
                return False
    sync(os.path.dirname(path))
    return True


def _create_exclusively(path: str, data: bytes) -> bool:
    try:
        with open(path, "xb") as file:
            _write_synced(file.fileno(), data)
    except FileExistsError:
        return False
    return True


@contextmanager
def _temporary(path: str, data: pa.Buffer | bytes | memoryview) -> Iterator[str]:
    """Write a temporary file in the same folder; it is removed at the end."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with _open_new(temporary) as file:
            _write_synced(file.fileno(), data)
        yield temporary
    finally:
        # SIGTERM may arrive at any point.
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _open_new(path: str) -> BinaryIO:
    """Create a file in a folder that another process may remove while it is empty."""
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError, FileExistsError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return open(path, "xb")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return open(path, "xb")


def _write_synced(number: int, data: pa.Buffer | bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
    os.fsync(number)


def sync(path: str) -> None:
    """Make a file or folder survive a power cut, as far as its file system can."""
    with suppress(OSError):  # some cannot sync a folder
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
