"""Engines that fail while they load, and the real one where they do not.

Each load is a line in `loads.txt`, in the folder that holds the checkpoint's: the process id of the node's raylet.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import httpx2
from huggingface_hub.utils._http import hf_raise_for_status

from caslie_ray.engines import Engine, EngineSpec, load_engine
from caslie_ray.errors import EngineError
from tests.faulty import SlowEngine

FREE_MEMORY = (
    "Free memory on device cuda:0 (10.1/79.2 GiB) on startup is less than desired GPU memory utilization"
    " (0.45, 35.6 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)


def loads(checkpoint: str) -> list[str]:
    """The nodes on which a checkpoint was loaded, in order."""
    path = Path(checkpoint).parent / "loads.txt"
    return path.read_text().split() if path.exists() else []


def hub_down_twice(spec: EngineSpec) -> Engine:
    """The hub refuses the first request for its rate limit, and cannot be used at the second."""
    number = _note(spec)
    if number <= 2:
        _answer(429 if number == 1 else 503)
    return _real(spec)


def hub_down(spec: EngineSpec) -> Engine:
    _note(spec)
    return _answer(503)


def gated(spec: EngineSpec) -> Engine:
    _note(spec)
    return _answer(403, "GatedRepo")


def card_in_use_once(spec: EngineSpec) -> Engine:
    """A neighbour that is being replaced still holds the card's memory, as vLLM says it."""
    if _note(spec) == 1:
        raise EngineError(f"checkpoint {spec.checkpoint} cannot be loaded on vLLM: ValueError: {FREE_MEMORY}")
    return _real(spec)


def disk_full(spec: EngineSpec) -> Engine:
    """The first node to load it has no space left, for good."""
    _note(spec)
    if loads(spec.checkpoint)[0] == _node():
        raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")
    return _real(spec)


def broken_card_once(spec: EngineSpec) -> Engine:
    if _note(spec) == 1:
        raise RuntimeError("No CUDA GPUs are available")
    return _real(spec)


def only_the_first(spec: EngineSpec) -> Engine:
    """The hub answers the first replica and none after it."""
    if _note(spec) > 1:
        _answer(503)
    return SlowEngine(_real(spec), 0.2)


def _real(spec: EngineSpec) -> Engine:
    return load_engine(replace(spec, engine="transformers", device="cpu"))


def _node() -> str:
    return os.environ["RAY_RAYLET_PID"]  # Ray sets it, and an engine's process inherits it


def _note(spec: EngineSpec) -> int:
    """Note a load; return how many there were, this one included."""
    with (Path(spec.checkpoint).parent / "loads.txt").open("a") as file:
        file.write(f"{_node()}\n")
    return len(loads(spec.checkpoint))


def _answer(status: int, code: str = "") -> Engine:
    """Raise what the hub's client makes of an answer."""
    request = httpx2.Request("GET", "https://huggingface.co/api/models/org/m/revision/main")
    hf_raise_for_status(
        httpx2.Response(status, headers={"X-Error-Code": code} if code else {}, request=request, json={})
    )
    raise AssertionError(f"{status} is no error")
