"""Local copies of LoRA adapters that are on an object store, because engines read folders.

Every process that uses a copy has a shared lock (flock) on it. The last process to release a copy deletes it; copies of
killed processes are deleted by the next download on the node.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pyarrow.fs as pafs
from filelock import FileLock, Timeout

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.downloads import exclusive
from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import open_run

__all__ = ["release_adapters", "with_local_adapters"]

_LOCK = ".lock"
_in_use: dict[Path, int] = {}
"""The copies that this process uses, with the open file descriptor of each lock."""


def with_local_adapters(spec: EngineSpec) -> EngineSpec:
    """Return a spec whose adapters are local folders; those at a URI are downloaded, once per node.

    The copies remain until `release_adapters` or the end of the process, since an engine may load them again.

    Raises:
        RunError: an adapter cannot be read from the store, or no local folder is safe to write to.
    """
    local = {name: _fetched(place) if "://" in place else place for name, place in spec.adapters.items()}
    return replace(spec, adapters=local)


@atexit.register
def release_adapters() -> None:
    """Delete the copies that this process used, except those in use by another process of the node."""
    roots = {folder.parent for folder in _in_use}
    while _in_use:
        os.close(_in_use.popitem()[1])
    for root in roots:
        # A process that is downloading now deletes unused copies itself.
        with suppress(OSError, Timeout), FileLock(root / _LOCK, timeout=0, mode=0o666):
            _remove_unused(root)


def _fetched(uri: str) -> str:
    """Return the local copy of a folder; its name covers file sizes and times, since an adapter may be replaced."""
    from huggingface_hub import constants  # slow to import, and only needed on an object store

    run = open_run(uri)
    files = [info for info in run.listed(run.root) if info.type == pafs.FileType.File]
    stamps = sorted((info.base_name, info.size, info.mtime_ns) for info in files)
    root = _root(Path(constants.HF_HOME, "caslie-adapters"))
    folder = root / content_id(uri, repr(stamps))
    if folder in _in_use:
        return str(folder)
    with exclusive(root / _LOCK, f"another process copies {run.label}"):
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o700)
            for info in files:
                (part / info.base_name).write_bytes(run.read_bytes(info.path))
            os.replace(part, folder)
        opened = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # no lock support: the copies are never deleted
            fcntl.flock(opened, fcntl.LOCK_SH)
        _in_use[folder] = opened
        _remove_unused(root)
    return str(folder)


def _remove_unused(root: Path) -> None:
    """Delete the copies that no process uses; the caller has the lock of `root`, so no download is running."""
    for folder in root.iterdir():
        if not folder.is_dir() or folder in _in_use:
            continue
        with suppress(OSError):  # in use, owned by another user, or no lock support
            opened = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(opened)


def _root(preferred: Path) -> Path:
    """Return the preferred folder if it is writable, otherwise this user's folder in the temporary directory.

    Raises:
        RunError: the temporary folder belongs to another user, who could replace the adapters.
        OSError: neither folder can be created.
    """
    try:
        preferred.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR):
            raise
    if os.access(preferred, os.W_OK | os.X_OK):
        return preferred
    other = Path(tempfile.gettempdir(), f"caslie-adapters-{os.getuid()}")
    other.mkdir(mode=0o700, exist_ok=True)
    status = other.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise RunError(f"{other}: belongs to another user; make HF_HOME ({preferred.parent}) writable")
    return other
