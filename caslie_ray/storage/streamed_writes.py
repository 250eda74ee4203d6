"""Files of any size, written so that readers see the old file or the new one, complete."""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import BinaryIO

import pyarrow as pa

from caslie_ray.errors import RunError, StoreError
from caslie_ray.storage._local_files import sync
from caslie_ray.storage.filesystems import is_object_store, local_path
from caslie_ray.storage.redaction import brief
from caslie_ray.storage.run import Run

__all__ = ["replace_file"]

# Larger files of an object store are not made in memory.
_LARGEST_PUT = 64 << 20


def replace_file(folder: Run, path: str, fill: Callable[[BinaryIO], None], size: int) -> None:
    """Write a file: a small one of an object store in one put, others under a temporary name and then renamed.

    Args:
        folder: is on the file's store.
        path: of the file.
        fill: writes the content to a stream; called again if an object store did not answer.
        size: about how many bytes it writes.

    Raises:
        StoreError: the store is full or refuses; the old content is kept.
    """
    if is_object_store(folder.fs) and size <= _LARGEST_PUT:
        content = pa.BufferOutputStream()
        fill(content)
        folder.put(path, content.getvalue())
    else:
        _rename_over(folder, path, fill)


def _rename_over(folder: Run, path: str, fill: Callable[[BinaryIO], None]) -> None:
    parent, name = posixpath.split(path)
    temporary = posixpath.join(parent, f".{name}.{uuid.uuid4().hex}.tmp")

    def write() -> None:
        if not is_object_store(folder.fs):
            folder.fs.create_dir(parent, recursive=True)
        with folder.fs.open_output_stream(temporary, compression=None) as stream:
            fill(stream)
        _sync(folder, temporary)
        folder.fs.move(temporary, path)
        _sync(folder, parent)

    try:
        folder.with_retries("write", path, write)
    except (OSError, pa.ArrowException) as error:
        _discard(folder, temporary)
        raise StoreError(f"cannot write {path}: {brief(error)}; fix that and run the same command again") from error
    except BaseException:  # SIGTERM too
        _discard(folder, temporary)
        raise


def _sync(folder: Run, path: str) -> None:
    # Before the caller deletes what the file was made of.
    if (local := local_path(folder.fs, path)) is not None:
        sync(local)


def _discard(folder: Run, path: str) -> None:
    with suppress(RunError, OSError):  # the first error is the one to report
        folder.delete([path])
