"""Atomic writes on every kind of file system: readers see the old file or the new one, complete."""

from __future__ import annotations

import posixpath
import threading
import uuid
from _thread import start_new_thread
from contextlib import suppress

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.storage._local_files import replace_file
from caslie_ray.storage.filesystems import local_path

__all__ = ["delete_file", "put_object", "replace_on_file_system"]


def replace_on_file_system(filesystem: pafs.FileSystem, path: str, data: pa.Buffer | bytes) -> None:
    """Write a file on a file system that can rename; on a local one the file also survives a power cut.

    Raises:
        OSError: the disk is full, or the system refuses; the old content is kept.
    """
    if (local := local_path(filesystem, path)) is not None:
        replace_file(local, data)
        return
    folder, name = posixpath.split(path)
    filesystem.create_dir(folder, recursive=True)
    temporary = posixpath.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        with filesystem.open_output_stream(temporary) as stream:
            stream.write(data)
        filesystem.move(temporary, path)
    except BaseException:  # SIGTERM too
        delete_file(filesystem, temporary)
        raise


def put_object(filesystem: pafs.FileSystem, path: str, data: memoryview) -> None:
    """Write a file on an object store, where it appears when the upload is complete."""
    outcome: list[BaseException | None] = []
    started, finished = threading.Lock(), threading.Lock()
    finished.acquire()

    def put() -> None:
        if not started.acquire(blocking=False):
            return  # the caller was interrupted first
        failure: BaseException | None = None
        try:
            with filesystem.open_output_stream(path, compression=None) as stream:
                stream.write(data)
        except BaseException as error:
            failure = error
        outcome.append(failure)
        finished.release()

    # Closing an interrupted stream would upload a truncated file, and Python delivers signals to the main thread only:
    # so another thread writes. Bare locks, because a signal handler that raises inside Thread.start() or Event.wait()
    # can surface as RuntimeError("release unlocked lock").
    try:
        start_new_thread(put, ())
        finished.acquire()
    except BaseException:
        if not started.acquire(blocking=False) and not outcome:
            finished.acquire()
        raise
    if outcome[0] is not None:
        raise outcome[0]


def delete_file(filesystem: pafs.FileSystem, path: str) -> None:
    """Delete a file; one that does not exist is no error."""
    if filesystem.get_file_info(path).type != pafs.FileType.NotFound:
        with suppress(FileNotFoundError):  # another writer was quicker
            filesystem.delete_file(path)
