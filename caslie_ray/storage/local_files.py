"""Atomic and durable writes on local and shared file systems.

What has been written survives a power cut: data is flushed to the disk before the name shows, then the folder is.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.storage.stores import innermost

__all__ = ["create_file", "local_path", "replace_file"]

_ATTEMPTS = 5


def local_path(filesystem: pafs.FileSystem, path: str) -> str | None:
    """Return a path as the operating system has it; None where the file system is not one of its own."""
    filesystem, path = innermost(filesystem, path)
    return path if isinstance(filesystem, pafs.LocalFileSystem) else None


def replace_file(path: str, data: pa.Buffer | bytes | memoryview) -> None:
    """Write a file so that readers see the old content or the new one, in full.

    Raises:
        OSError: the disk is full, or the system refuses; the old content is kept.
    """
    with _temporary(path, data) as temporary:
        os.replace(temporary, path)
    _flush_folder(path)


def create_file(path: str, data: bytes, link: Callable[[str, str], None] = os.link) -> bool:
    """Create a file unless it is there; return whether it was created.

    A hard link makes the name appear with its content, and fails where the name exists. File systems without hard
    links get an exclusive open; readers may then see the file before its content.

    Args:
        path: where.
        data: the content.
        link: makes the hard link.

    Raises:
        OSError: the system refuses.
    """
    with _temporary(path, data) as temporary:
        try:
            link(temporary, path)
        except FileExistsError:
            return False
        except OSError:
            # Over NFS an answer may be lost although the link was made.
            if os.stat(temporary).st_nlink < 2 and not _create_exclusively(path, data):
                return False
    _flush_folder(path)
    return True


def _create_exclusively(path: str, data: bytes) -> bool:
    try:
        with open(path, "xb") as file:
            _write_flushed(file.fileno(), data)
    except FileExistsError:
        return False
    return True


@contextmanager
def _temporary(path: str, data: pa.Buffer | bytes | memoryview) -> Iterator[str]:
    """Write a file of another name in the same folder; it is removed at the end."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with _open_new(temporary) as file:
            _write_flushed(file.fileno(), data)
        yield temporary
    finally:
        # SIGTERM may arrive between any two lines.
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _open_new(path: str) -> BinaryIO:
    """Open a file that is not there, in a folder that another process may be about to remove while it is empty."""
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError, FileExistsError):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            return open(path, "xb")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return open(path, "xb")


def _write_flushed(number: int, data: pa.Buffer | bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]
    os.fsync(number)


def _flush_folder(path: str) -> None:
    # Some file systems cannot flush a folder.
    with suppress(OSError):
        number = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
