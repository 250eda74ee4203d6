"""LoRA adapters of a run on an object store, copied to this node's disk: engines read folders."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow.fs as pafs

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.downloads import exclusive
from caslie_ray.ids import content_id
from caslie_ray.runs import RunError, open_run

__all__ = ["with_local_adapters"]


def with_local_adapters(spec: EngineSpec) -> EngineSpec:
    """Return a spec whose adapters are folders of this machine; those named by a URI are fetched, once per node.

    Raises:
        RunError: the store does not give one, or no folder of this machine can take it.
    """
    local = {name: _fetched(place) if "://" in place else place for name, place in spec.adapters.items()}
    return replace(spec, adapters=local)


def _fetched(uri: str) -> str:
    """The local copy of a folder. Its name depends on the files' sizes and times too: an adapter may be replaced."""
    from huggingface_hub import constants  # slow to import, and only a run on an object store needs it

    run = open_run(uri)
    files = [info for info in run.listed(run.root) if info.type == pafs.FileType.File]
    stamps = sorted((info.base_name, info.size, info.mtime_ns) for info in files)
    folder = _root(Path(constants.HF_HOME, "caslie-adapters")) / content_id(uri, repr(stamps))
    if folder.is_dir():
        return str(folder)
    with exclusive(folder.with_suffix(".lock"), f"another process copies {run.label}"):
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o700)
            for info in files:
                (part / info.base_name).write_bytes(run.read_bytes(info.path))
            os.replace(part, folder)
    return str(folder)


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
