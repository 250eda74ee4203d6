"""Adds a LoRA adapter to a model."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from caslie_ray.errors import EngineError
from caslie_ray.profiles import LoraSettings

__all__ = ["add_adapter", "trained_parameters"]


def add_adapter(model: Any, settings: LoraSettings, seed: int) -> Any:
    """Add a new adapter to a model; only its matrices are trained.

    Its A matrices are drawn on the CPU, so that they depend on the seed alone.

    Raises:
        EngineError: the model lacks a module that `settings.targets` names.
    """
    names = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    missing = [target for target in settings.targets if target not in names]
    if missing:
        raise EngineError(
            f"training.lora.targets: the model has no module {', '.join(missing)}; it has {', '.join(sorted(names))}"
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
    """Return the trained parameters with their names, sorted by name."""
    return sorted((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)
