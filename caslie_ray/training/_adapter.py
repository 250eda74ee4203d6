"""The LoRA adapter: put on a model, saved, and merged into it."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from caslie_ray.errors import EngineError
from caslie_ray.profiles import LoraSettings

__all__ = ["add_adapter", "trained_parameters"]


def add_adapter(model: Any, settings: LoraSettings, seed: int) -> Any:
    """Put a fresh adapter on a model; only its matrices are trained.

    The first matrices are drawn on the CPU from the seed alone, whatever the device.

    Raises:
        EngineError: the model has no module of one of the targets' names.
    """
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    lost = [target for target in settings.targets if target not in names]
    if lost:
        raise EngineError(
            f"training.lora.targets: the model has no module {', '.join(lost)}; it has {', '.join(sorted(names))}"
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in trained_parameters(wrapped):
            if "lora_A" in name:
                bound = parameter.shape[1] ** -0.5
                fresh = torch.empty(parameter.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
                parameter.copy_(fresh)
    return wrapped


def trained_parameters(model: Any) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters that are trained, in the order of their names."""
    return sorted((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
