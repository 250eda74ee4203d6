"""A card with little memory: real forward and backward passes of a real model that raise what a GPU raises."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from caslie_ray.training._ray_worker import train_worker

__all__ = ["MARKS", "Phase", "optimizer_on_small_card", "small_card", "work_on_small_card"]

Phase = Literal["forward", "backward"]
MARKS = "small-card-attempts"
"""File in the run: a line for each time that Ray Train started a worker."""

_REASON = "CUDA out of memory. Tried to allocate 2.00 GiB (simulated)"


@contextmanager
def small_card(layer: int, tokens: int, phase: Phase) -> Iterator[list[int]]:
    """Raise in a decoder layer wherever more tokens than these pass through; yields the sizes of passes that began.

    In the backward pass the layers above, and the head, have computed their gradients when it raises.
    """
    sizes: list[int] = []

    def out_of_memory(gradient: Tensor) -> Tensor:
        raise torch.OutOfMemoryError(_REASON)

    def look(module: Any, arguments: Any, output: Any) -> None:
        if not isinstance(module, LlamaDecoderLayer) or module.self_attn.layer_idx != layer:
            return
        hidden = output[0] if isinstance(output, tuple) else output
        size = hidden.shape[0] * hidden.shape[1]
        sizes.append(size)
        if size <= tokens:
            return
        if phase == "forward":
            raise torch.OutOfMemoryError(_REASON)
        if hidden.requires_grad:
            hidden.register_hook(out_of_memory)

    hook = register_module_forward_hook(look)
    try:
        yield sizes
    finally:
        hook.remove()


def _mark(config: Mapping[str, Any]) -> None:
    run = config["assignment"].run
    path = Path(run.path("models")).parent / MARKS
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


def work_on_small_card(config: Mapping[str, Any]) -> None:
    """What a worker of Ray Train does, where no sample fits the card."""
    _mark(config)
    with small_card(1, 20, "backward"):
        train_worker(config)


def optimizer_on_small_card(config: Mapping[str, Any]) -> None:
    """What a worker of Ray Train does, where the optimizer's state does not fit the card."""
    _mark(config)

    def out_of_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError(_REASON)

    hook: Any = register_optimizer_step_pre_hook(out_of_memory)
    try:
        train_worker(config)
    finally:
        hook.remove()
