"""LoRA adapters that lie in a run on an object store: an engine wants them on its own machine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow.fs as pafs

from caslie_ray.engines import EngineSpec
from caslie_ray.runs import open_run

__all__ = ["with_local_adapters"]


def with_local_adapters(spec: EngineSpec) -> EngineSpec:
    """Return a spec whose adapters are folders of this machine; those named by a URI are fetched.

    Raises:
        RunError: the store does not give one.
    """
    local = {name: _fetched(place) if "://" in place else place for name, place in spec.adapters.items()}
    return replace(spec, adapters=local)


def _fetched(uri: str) -> str:
    held = open_run(uri)
    folder = Path(tempfile.mkdtemp(prefix="caslie-adapter-"))
    for info in held.listed(held.root):
        if info.type == pafs.FileType.File:
            (folder / info.base_name).write_bytes(held.read_bytes(info.path))
    return str(folder)
