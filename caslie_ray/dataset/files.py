"""Images and sources by path: on this machine, or in an object store through pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from urllib.parse import unquote, urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.dataset.decoding import ImageError, too_large
from caslie_ray.stores import NoAnswer, Patience, RunError, open_path, patiently

__all__ = ["file_keys", "open_file", "read_file"]

_BATCH = 5000
# A picture that its store does not give is a reject that a later run tries again, and there may be many.
_PATIENCE = Patience(total_s=15.0)
_SILENT = "no answer: the store of this image did not answer for a while; run ingest again"


@lru_cache(maxsize=64)
def _store(root: str) -> tuple[pafs.FileSystem, str]:
    return open_path(root)


def open_file(locator: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a ``file:`` or ``store:`` locator, and the path within it.

    Raises:
        RunError: the store cannot be opened.
    """
    kind, _, place = locator.partition(":")
    if kind == "file":
        return _store("/")[0], place
    parts = urlsplit(place)
    filesystem, inner = _store(urlunsplit(parts._replace(path="/")))
    return filesystem, inner.rstrip("/") + "/" + unquote(parts.path).lstrip("/")


def file_keys(locators: Iterable[str]) -> dict[str, str | ImageError]:
    """Look at many files at once.

    Returns:
        For each locator a key that changes when the file does, or why it cannot be read.
    """
    found: dict[str, str | ImageError] = {}
    for _, group in groupby(sorted(set(locators), key=_store_of), key=_store_of):
        members = list(group)
        for start in range(0, len(members), _BATCH):
            batch = members[start : start + _BATCH]
            found.update(zip(batch, _keys(batch), strict=True))
    return found


def _store_of(locator: str) -> tuple[str, ...]:
    """Tell stores apart by scheme, bucket and options; paths of this machine belong together."""
    if locator.startswith("file:"):
        return ("file:",)
    return (*locator.split("/", 3)[:3], locator.partition("?")[2])


def _keys(locators: Sequence[str]) -> list[str | ImageError]:
    try:
        opened = [open_file(locator) for locator in locators]
        filesystem, paths = opened[0][0], [path for _, path in opened]
        infos = patiently(filesystem, "look up", paths[0], lambda: filesystem.get_file_info(paths), _PATIENCE)
    except NoAnswer:
        return [ImageError(_SILENT, retryable=True)] * len(locators)
    except (OSError, ValueError, RunError) as error:
        if len(locators) > 1:
            # One path that the file system refuses must not cost its neighbours.
            return [key for locator in locators for key in _keys([locator])]
        reason = f"unreadable path: {str(error.__cause__ or error)[:200]}; check the path and the rights"
        return [ImageError(reason, retryable=not locators[0].startswith("file:"))]
    return [_key(locator, info) for locator, info in zip(locators, infos, strict=True)]


def _key(locator: str, info: pafs.FileInfo) -> str | ImageError:
    if info.type == pafs.FileType.NotFound:
        return ImageError(f"missing file: {info.path} is not there; put it there or set images.root")
    if info.type != pafs.FileType.File:
        what = "a folder" if info.type == pafs.FileType.Directory else "no regular file"
        return ImageError(f"not a file: {info.path} is {what}; name an image file")
    return f"{locator}|{info.size}|{info.mtime_ns}"


def read_file(locator: str, max_bytes: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        ImageError: it cannot be read, or is longer than `max_bytes`.
    """
    local = locator.startswith("file:")
    try:
        filesystem, path = open_file(locator)
        return patiently(filesystem, "read", path, lambda: _read(filesystem, path, max_bytes), _PATIENCE)
    except NoAnswer:
        raise ImageError(_SILENT, retryable=True) from None
    except (OSError, ValueError, RunError, pa.ArrowException) as error:
        reason = f"unreadable file: {str(error.__cause__ or error)[:200]}; check the path and the rights"
        raise ImageError(reason, retryable=not local) from None


def _read(filesystem: pafs.FileSystem, path: str, max_bytes: int) -> bytes:
    info = filesystem.get_file_info(path)
    if info.type != pafs.FileType.File:
        raise ImageError(f"missing file: {path} is not there; put it there or set images.root")
    if info.size is not None and info.size > max_bytes:
        raise ImageError(too_large(info.size, max_bytes))
    with filesystem.open_input_stream(path, compression=None) as stream:
        data: bytes = stream.read(max_bytes + 1)
    return data
