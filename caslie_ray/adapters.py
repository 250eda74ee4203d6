"""LoRA adapters of a run on an object store, copied to this node's disk: engines read folders."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.fs as pafs

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.downloads import exclusive
from caslie_ray.ids import content_id
from caslie_ray.runs import open_run

__all__ = ["with_local_adapters"]


def with_local_adapters(spec: EngineSpec) -> EngineSpec:
    """Return a spec whose adapters are folders of this machine; those named by a URI are fetched, once per node.

    Raises:
        RunError: the store does not give one.
    """
    local = {name: _fetched(place) if "://" in place else place for name, place in spec.adapters.items()}
    return replace(spec, adapters=local)


def _fetched(uri: str) -> str:
    """The local copy of a folder. Its name depends on the files' sizes and times too: an adapter may be replaced."""
    from huggingface_hub import constants  # slow to import, and only a run on an object store needs it

    held = open_run(uri)
    files = [info for info in held.listed(held.root) if info.type == pafs.FileType.File]
    stamps = sorted((info.base_name, info.size, info.mtime_ns) for info in files)
    folder = Path(constants.HF_HOME, "caslie-adapters", content_id(uri, repr(stamps)))
    if folder.is_dir():
        return str(folder)
    with exclusive(folder.with_suffix(".lock"), f"another process copies {held.label}"):
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o700)
            for info in files:
                (part / info.base_name).write_bytes(held.read_bytes(info.path))
            os.replace(part, folder)
    return str(folder)
