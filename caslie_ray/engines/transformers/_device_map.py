"""Splits a model over the GPUs of one replica by layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers.integrations.accelerate import get_balanced_memory, infer_auto_device_map

from caslie_ray.engines._replica_memory import GIB, replica_memory, without_weights
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError

__all__ = ["split_over"]

# The model does not move the inputs of these modules, which are on the first GPU.
_FIRST = ("embed_tokens", "vision_model", "vision_tower")


def split_over(free: Sequence[int], config: Any, spec: EngineSpec) -> dict[str, int]:
    """Assign each module of a checkpoint to a GPU: layers in order, weights balanced, no layer split.

    Each GPU keeps room for its part of the KV cache and for the activations of a full batch; the first one also for
    the vision encoder. Nothing is offloaded to main memory or disk.

    Args:
        free: free bytes of each GPU, in order.
        config: the checkpoint's configuration.
        spec: how it is run, on transformers.

    Returns:
        The GPU index of each module, a `device_map` of `from_pretrained`.

    Raises:
        EngineError: the model does not fit; the message says how much it needs and how to reduce that.
    """
    gpus = len(free)
    memory = replica_memory(config, replace(spec, engine="transformers", gpus=float(gpus)))
    later = memory.kv_cache + memory.work + memory.fixed
    on_first = max(memory.vision, memory.kv_cache + memory.work) + memory.fixed
    room: dict[int | str, int | str] = {
        gpu: max(0, size - (later if gpu else on_first)) for gpu, size in enumerate(free)
    }
    model = without_weights(config, getattr(torch, spec.dtype))
    unsplit = model._no_split_modules
    on_first_gpu = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in _FIRST]
    # Balance the weights if possible; otherwise fill the GPUs in order.
    for limits in (get_balanced_memory(model, dict(room), unsplit), room) if unsplit else ():
        placed: dict[str, int | str] = infer_auto_device_map(model, limits, unsplit)
        misplaced = any(gpu != 0 and _overlaps(name, first) for name, gpu in placed.items() for first in on_first_gpu)
        if "disk" not in placed.values() and not misplaced:
            return {name: int(gpu) for name, gpu in placed.items()}
    if not unsplit:
        raise EngineError(
            f"checkpoint {spec.checkpoint} has no list of modules that may not be split, so it cannot be split over"
            f" {gpus} GPUs; set engine to vllm, or resources.gpus (in schedule=staged and in predict: alone.gpus) to 1"
        )
    raise EngineError(
        f"checkpoint {spec.checkpoint} does not fit {gpus} GPUs: it has {memory.weights * gpus / GIB:.1f} GiB"
        f" of weights, and a batch takes {on_first / GIB:.1f} GiB on the first GPU and {later / GIB:.1f} GiB on each"
        f" other, of {min(free) / GIB:.1f} GiB that are free; lower batch_size and batch_tokens (in"
        " schedule=staged and in predict: alone.batch_size, alone.batch_tokens), or give it more or larger GPUs"
        " (resources.gpus; alone.gpus)"
    )


def _overlaps(name: str, other: str) -> bool:
    """Return whether one of two modules is, or contains, the other; the model itself has an empty name."""
    return not name or f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")
