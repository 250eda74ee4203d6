"""Images by path: on this machine, or in an object store through pyarrow. Nothing outside the given roots is opened.

On this machine symbolic links are resolved before a file is opened, and the path of the open file is checked again: a
link out of the roots is refused, also one created in between (TOCTOU). Two gaps remain: hard links, which look like the
file itself, and systems without ``/proc``, where a folder may be replaced between check and open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby
from typing import ClassVar

import pyarrow.fs as pafs

from caslie_ray.dataset._decoding import ImageError, too_large
from caslie_ray.dataset._roots import RefusedPath, Root, find_root
from caslie_ray.errors import NoAnswer
from caslie_ray.storage.filesystems import is_object_store, open_path
from caslie_ray.storage.redaction import brief
from caslie_ray.storage.retries import RetryPolicy, with_retries

__all__ = ["Files", "store_of"]

_BATCH = 5000
_AT_ONCE = 16
# Short: such an image is a retryable reject, and there may be many.
_PATIENCE = RetryPolicy(total_s=15.0)
_OUTSIDE = (
    "refused path: a link leads out of what rows may name; put the image itself there, or add the folder that the link"
    " leads to to images.allow"
)
_OPENED = "/proc/self/fd"
_SHOWN = 200


@lru_cache(maxsize=64)
def _store(top: str) -> tuple[pafs.FileSystem, str]:
    return open_path(top)


class Files:
    """Looks up and reads files below roots.

    A store that does not answer is waited for once: its other files then fail immediately, for the life of this object.

    Args:
        roots: what may be opened; options and credentials of stores are theirs.

    Attributes:
        silent: the stores that did not answer.
    """

    SILENT: ClassVar = "no answer: the store of this image did not answer for a while; run ingest again"

    def __init__(self, roots: Sequence[Root]) -> None:
        self._roots = tuple(roots)
        self._real = tuple({os.path.realpath(root.path) for root in roots if not root.store})
        self.silent: set[str] = set()

    def keys(self, locators: Iterable[str]) -> dict[str, str | ImageError]:
        """Look up many files, without raising.

        Returns:
            For each locator a key that changes when the file does, or why it cannot be read.
        """
        found: dict[str, str | ImageError] = {}
        for store, group in groupby(sorted(set(locators), key=store_of), key=store_of):
            members = list(group)
            for start in range(0, len(members), _BATCH):
                batch = members[start : start + _BATCH]
                keys = self._keys_in_store(store, batch) if store else [self._key_here(one) for one in batch]
                found.update(zip(batch, keys, strict=True))
        return found

    def read(self, locator: str, max_bytes: int) -> bytes:
        """Return the bytes of a file.

        Raises:
            ImageError: it cannot be read, may not be, or is longer than `max_bytes`.
        """
        store = store_of(locator)
        if store in self.silent:
            raise ImageError(self.SILENT, retryable=True)
        try:
            if not store:
                return self._read_here(locator.removeprefix("file:"), max_bytes)
            filesystem, path = self._object(locator)
            return with_retries(filesystem, "read", path, lambda: _read(filesystem, path, max_bytes), _PATIENCE)
        except ImageError:
            raise
        except RefusedPath as error:
            raise ImageError(str(error)) from None
        except NoAnswer:
            self.silent.add(store)
            raise ImageError(self.SILENT, retryable=True) from None
        except Exception as error:  # no image may end the job, whatever a library raises
            reason = f"unreadable file: {_why(error)}; check the path and the rights"
            raise ImageError(reason, retryable=bool(store)) from None

    def _object(self, locator: str) -> tuple[pafs.FileSystem, str]:
        root, path = find_root(self._roots, locator)
        filesystem, top = _store(root.top)
        inner = top.rstrip("/") + path
        return filesystem, inner.lstrip("/") if is_object_store(filesystem) else inner

    def _keys_in_store(self, store: str, locators: Sequence[str]) -> list[str | ImageError]:
        if store in self.silent:
            return [ImageError(self.SILENT, retryable=True)] * len(locators)
        try:
            opened = [self._object(locator) for locator in locators]
            filesystem, paths = opened[0][0], [path for _, path in opened]
            infos = with_retries(filesystem, "look up", paths[0], lambda: filesystem.get_file_info(paths), _PATIENCE)
        except NoAnswer:
            self.silent.add(store)
            return [ImageError(self.SILENT, retryable=True)] * len(locators)
        except Exception as error:  # as in `read`
            if len(locators) > 1:
                # One path that the store refuses must not affect the others.
                with ThreadPoolExecutor(_AT_ONCE) as pool:
                    return [keys[0] for keys in pool.map(lambda one: self._keys_in_store(store, [one]), locators)]
            if isinstance(error, RefusedPath):
                return [ImageError(str(error))]
            reason = f"unreadable path: {_why(error)}; check the path and the rights"
            return [ImageError(reason, retryable=True)]
        return [_key(locator, info) for locator, info in zip(locators, infos, strict=True)]

    def _key_here(self, locator: str) -> str | ImageError:
        path = locator.removeprefix("file:")
        try:
            found = os.stat(self._resolved(path))
        except FileNotFoundError:
            return _missing(path)
        except ImageError as error:
            return error
        except (OSError, ValueError) as error:
            return ImageError(f"unreadable path: {_why(error)}; check the path and the rights")
        if not stat.S_ISREG(found.st_mode):
            return _no_file(path, "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file")
        return f"{locator}|{found.st_size}|{found.st_mtime_ns}"

    def _resolved(self, path: str) -> str:
        """Return a path without links.

        Raises:
            ImageError: it leads out of the roots; this does not depend on whether the file exists.
        """
        real = os.path.realpath(path)
        self._refuse_outside(real)
        return real

    def _refuse_outside(self, real: str) -> None:
        if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._real):
            raise ImageError(_OUTSIDE)

    def _read_here(self, path: str, max_bytes: int) -> bytes:
        real = self._resolved(path)
        # O_NONBLOCK: opening a named pipe would block forever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            opened = os.open(real, flags)
        except FileNotFoundError:
            raise _missing(path) from None
        try:
            if os.path.isdir(_OPENED):
                self._refuse_outside(os.readlink(f"{_OPENED}/{opened}"))
            found = os.fstat(opened)
            if not stat.S_ISREG(found.st_mode):
                raise _no_file(path, "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file")
            if found.st_size > max_bytes:
                raise ImageError(too_large(found.st_size, max_bytes))
            with open(opened, "rb", closefd=False) as file:
                return file.read(max_bytes + 1)
        finally:
            os.close(opened)


def store_of(locator: str) -> str:
    """Return what identifies a store: settings, scheme and bucket; empty for this machine."""
    return "" if locator.startswith("file:") else "/".join(locator.split("/", 3)[:3])


def _key(locator: str, info: pafs.FileInfo) -> str | ImageError:
    if info.type == pafs.FileType.NotFound:
        return _missing(info.path)
    if info.type != pafs.FileType.File:
        return _no_file(info.path, "a folder" if info.type == pafs.FileType.Directory else "no regular file")
    return f"{locator}|{info.size}|{info.mtime_ns}"


def _missing(path: str) -> ImageError:
    return ImageError(f"missing file: {path} is not there; put it there or set images.root")


def _no_file(path: str, what: str) -> ImageError:
    return ImageError(f"not a file: {path} is {what}; name an image file")


def _why(error: Exception) -> str:
    return brief(error)[:_SHOWN]


def _read(filesystem: pafs.FileSystem, path: str, max_bytes: int) -> bytes:
    info = filesystem.get_file_info(path)
    if info.type != pafs.FileType.File:
        raise _missing(path)
    if info.size is not None and info.size > max_bytes:
        raise ImageError(too_large(info.size, max_bytes))
    with filesystem.open_input_stream(path, compression=None) as stream:
        data: bytes = stream.read(max_bytes + 1)
    return data
