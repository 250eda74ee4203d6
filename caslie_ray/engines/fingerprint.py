"""Content hash of everything that affects a model's output; loads no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caslie_ray.engines._checkpoints import Checkpoint, CheckpointError, resolve
from caslie_ray.engines.revisions import pinned
from caslie_ray.engines.spec import EngineSpec

__all__ = ["fingerprint", "weight_bytes"]

WEIGHTS = (".safetensors", ".gguf")
SETTINGS = (".json", ".jinja", ".model", ".tiktoken")
VOCABULARIES = ("merges.txt", "vocab.txt")
IGNORED = ("trainer_state.json",)
CHUNK = 1 << 16
CHUNKS = 256


def fingerprint(spec: EngineSpec, adapter: str | None = None) -> str:
    """Return 32 hexadecimal digits that change when an answer could.

    Args:
        spec: the checkpoint and its settings.
        adapter: the name of the adapter that answers, or None.

    Hashed: the checkpoint's content (for a hub id, its commit) including tokenizer and chat template, the generation
    settings, the dtype and the context length. Not hashed: batch sizes, device, engine and location. Of a weight file
    over 16 MiB, 256 chunks of 64 KiB are read, spread evenly from its first byte to its last, so that tens of
    gigabytes take seconds.

    Raises:
        CheckpointError: there is no such checkpoint.
        LoadError: the commit of a hub id's revision is not known; see `revisions.pinned`.
    """
    facts: dict[str, Any] = {
        "content": _content(resolve(spec.checkpoint), pinned(spec).revision),
        "dtype": spec.dtype,
        "context": spec.context,
        "max_new_tokens": spec.max_new_tokens,
        "generation": sorted((name, float(value)) for name, value in spec.generation.items()),
    }
    if adapter is not None:
        facts["adapter"] = _content(Checkpoint(spec.adapters[adapter], is_local=True), None)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def weight_bytes(checkpoint: str, revision: str | None = None) -> int | None:
    """Return the size of the weights in bytes, or None for a hub id whose weights are not on this machine.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    found = resolve(checkpoint)
    folder = Path(found.location) if found.is_local else _snapshot(found.location, revision)
    if folder is None:
        return None
    files = _files(folder, found.gguf_file)
    return sum(path.stat().st_size for path in files if path.suffix in WEIGHTS) or None


def _content(checkpoint: Checkpoint, revision: str | None) -> str:
    if not checkpoint.is_local:
        return f"{checkpoint.location}@{revision}"
    folder = Path(checkpoint.location)
    digest = hashlib.sha256()
    empty = True
    for path in _files(folder, checkpoint.gguf_file):
        empty = False
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        for chunk in _chunks(path):
            digest.update(chunk)
    if empty:
        raise CheckpointError(f"{folder} holds no checkpoint: no weights and no settings")
    return digest.hexdigest()


def _files(folder: Path, gguf_file: str | None) -> list[Path]:
    """Return the files that affect the model's output, in a fixed order."""
    if gguf_file is not None:
        return [folder / gguf_file]  # includes settings and tokenizer
    wanted = (*WEIGHTS, *SETTINGS)
    return sorted(
        path
        for path in folder.iterdir()
        if path.name in VOCABULARIES or (path.suffix in wanted and path.name not in IGNORED)
    )


def _chunks(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= CHUNK * CHUNKS or path.suffix not in WEIGHTS:
            while chunk := file.read(CHUNK):
                yield chunk
            return
        for number in range(CHUNKS):
            file.seek((size - CHUNK) * number // (CHUNKS - 1))
            yield file.read(CHUNK)


def _snapshot(model: str, revision: str | None) -> Path | None:
    """Return the folder of a hub id in the local cache, or None."""
    from huggingface_hub import try_to_load_from_cache  # slow to import, and only a hub id needs it

    found = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None
