"""How much memory a training will take, told from the checkpoint's configuration alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.trainable import read_config
from caslie_ray.profiles.training import TrainingSettings

__all__ = ["Memory", "estimate"]

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ADAPTER = 16  # bytes a parameter: its value, its gradient, and AdamW's two moments, float32 each
# Tensors of a layer's width that are kept for its backward pass, counted by hand in a decoder of the Llama kind with
# LoRA on all projections: an estimate, not measured on a GPU.
_KEPT = 34.0
_GIB = 2.0**30


class Memory(NamedTuple):
    """Gibibytes that one worker needs.

    Attributes:
        weights: of the base.
        adapter: the adapter with its gradients and the optimiser's state.
        activations: of the largest micro-batch.
    """

    weights: float
    adapter: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


def estimate(spec: EngineSpec, settings: TrainingSettings) -> Memory:
    """Estimate the memory of one worker; no weights are loaded.

    Raises:
        EngineError: the checkpoint's configuration cannot be read.
    """
    config = read_config(spec)
    with torch.device("meta"):
        auto: Any = AutoModelForCausalLM
        model = auto.from_config(config)
    weights = sum(parameter.numel() for parameter in model.parameters())
    adapted = sum(
        settings.lora.rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in settings.lora.targets
    )
    text = config.get_text_config(decoder=True)
    width = _BYTES[spec.dtype]
    tokens = max(settings.micro_tokens, spec.context)
    a_layer = tokens * text.hidden_size * width * _KEPT * max(1.0, text.intermediate_size / (4 * text.hidden_size))
    layers = 1 if settings.gradient_checkpointing else text.num_hidden_layers
    inputs = tokens * text.hidden_size * width * (text.num_hidden_layers if settings.gradient_checkpointing else 0)
    logits = tokens / 4 * text.vocab_size * 4 * 3  # answers are a small part of what is read
    base = weights * (0.55 if settings.quantize == "4bit" else width)
    base /= settings.num_workers.min if settings.shard else 1
    return Memory(base / _GIB, adapted * _ADAPTER / _GIB, (a_layer * layers + inputs + logits) / _GIB)
