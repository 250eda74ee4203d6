"""LoRA adapters of a run on an object store, copied to this node's disk: engines read folders.

A copy is locked (flock, shared) by every process that uses it. It is removed when its last user releases it; what a
killed process left behind is removed by the next one that copies an adapter on the node.
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
"""The copies that this process uses, and the open file that holds the lock of each."""


def with_local_adapters(spec: EngineSpec) -> EngineSpec:
    """Return a spec whose adapters are folders of this machine; those named by a URI are fetched, once per node.

    The copies stay until `release_adapters`, or until the process ends: an engine may load them again.

    Raises:
        RunError: the store does not give one, or no folder of this machine can take it.
    """
    local = {name: _fetched(place) if "://" in place else place for name, place in spec.adapters.items()}
    return replace(spec, adapters=local)


@atexit.register
def release_adapters() -> None:
    """Remove the copies that this process used and that no other process of the node uses."""
    roots = {folder.parent for folder in _in_use}
    while _in_use:
        os.close(_in_use.popitem()[1])
    for root in roots:
        # A process that copies at this moment removes what is unused itself.
        with suppress(OSError, Timeout), FileLock(root / _LOCK, timeout=0, mode=0o666):
            _remove_unused(root)


def _fetched(uri: str) -> str:
    """The local copy of a folder. Its name depends on the files' sizes and times too: an adapter may be replaced."""
    from huggingface_hub import constants  # slow to import, and only a run on an object store needs it

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
        with suppress(OSError):  # a file system without locks: its copies are never removed
            fcntl.flock(opened, fcntl.LOCK_SH)
        _in_use[folder] = opened
        _remove_unused(root)
    return str(folder)


def _remove_unused(root: Path) -> None:
    """Remove the copies that no process uses; the caller holds the lock of `root`, so that none is being made."""
    for folder in root.iterdir():
        if not folder.is_dir() or folder in _in_use:
            continue
        with suppress(OSError):  # in use, of another user, or on a file system without locks
            opened = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(opened)


def _root(preferred: Path) -> Path:
    """The preferred folder if it can be made and written, else one of this user among the temporary files.

    Raises:
        RunError: the folder among the temporary files belongs to another user, who could replace the adapters.
        OSError: neither folder can be made.
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
