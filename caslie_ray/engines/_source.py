"""Finds a checkpoint's files on this machine."""

from __future__ import annotations

from typing import Any, NamedTuple

from caslie_ray.engines._checkpoints import resolve
from caslie_ray.engines.downloads import local_snapshot
from caslie_ray.engines.revisions import pinned
from caslie_ray.engines.spec import EngineSpec

__all__ = ["Source", "find_source"]


class Source(NamedTuple):
    """The location of a checkpoint's files.

    Attributes:
        location: a folder.
        arguments: keyword arguments for every `from_pretrained`.
    """

    location: str
    arguments: dict[str, Any]


def find_source(spec: EngineSpec, *, weights: bool = True) -> Source:
    """Find a checkpoint on this machine; a hub checkpoint is downloaded if it is missing. Its code is never run.

    Args:
        spec: the checkpoint.
        weights: whether to download the weights, or only configuration and tokenizer.

    Raises:
        CheckpointError: there is no such checkpoint.
        LoadError: the hub refuses it or cannot be reached.
    """
    found = resolve(spec.checkpoint)
    arguments: dict[str, Any] = {"trust_remote_code": False}
    if not found.is_local:
        commit = pinned(spec).revision
        assert commit is not None
        return Source(str(local_snapshot(found.location, commit, weights=weights)), arguments)
    if found.gguf_file:
        arguments["gguf_file"] = found.gguf_file
    return Source(found.location, arguments)
