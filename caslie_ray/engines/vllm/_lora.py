"""Which LoRA adapters vLLM can apply to a checkpoint, as vLLM's own model classes say."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from vllm import ModelRegistry
from vllm import __version__ as vllm_version
from vllm.config.lora import MaxLoRARanks
from vllm.model_executor.models.interfaces import supports_lora

from caslie_ray.engines._families import IMAGE_FAMILIES
from caslie_ray.engines.spec import LoraShape

__all__ = ["RANKS", "ImportRefusal", "class_name", "class_with_adapters", "lora_refusal"]

RANKS: tuple[int, ...] = tuple(sorted(get_args(MaxLoRARanks)))
"""Ranks of LoRA that vLLM has kernels for."""

_MISTRAL, _LLAMA = "MistralForCausalLM", "LlamaForCausalLM"


class ImportRefusal(str):
    """A reason against vLLM that lies in its installation: the module of a model class raises when imported."""

    __slots__ = ()


def class_name(config: Any) -> str:
    """Return the name of the class that a checkpoint's configuration asks for."""
    # A GGUF file names no class; it holds a text model.
    return str((config.architectures or [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)])[0])


def class_with_adapters(config: Any, lora: LoraShape) -> str:
    """Return the name of the vLLM class that a checkpoint with adapters is loaded as.

    vLLM's Mistral class adapts no head. Its Llama class does, and builds the same network from the same weights
    unless the checkpoint attends to a sliding window or scales attention by position.
    """
    name = class_name(config)
    if name == _MISTRAL and _embeddings_refused(name, config, lora) and _llama_like(config):
        return _LLAMA
    return name


def lora_refusal(config: Any, lora: LoraShape) -> str | None:
    """Why vLLM cannot apply adapters of a shape to a checkpoint whose class it has; None where it can.

    Only the configuration is read: vLLM adapts all linear layers, and those embeddings that its class names.
    """
    if class_name(config) not in ModelRegistry.get_supported_archs():
        return f"vLLM {vllm_version} has no {class_name(config)}"
    try:
        name = class_with_adapters(config, lora)
        supported = supports_lora(_vllm_class(name))
    except Exception as error:  # importing a model's module may raise anything, as on a machine without a GPU
        return ImportRefusal(f"vLLM's {class_name(config)} cannot be imported here: {type(error).__name__}: {error}")
    if not supported:
        return f"vLLM {vllm_version} cannot adapt {name}"
    if lora.rank > RANKS[-1]:
        return f"vLLM {vllm_version} has LoRA kernels up to rank {RANKS[-1]}, and the adapter's is {lora.rank}"
    linear, embeddings = _modules(config)
    if unknown := [target for target in lora.targets if target not in linear | embeddings]:
        return f"{class_name(config)} has no module {', '.join(unknown)}; it has {', '.join(sorted(linear))}"
    if refused := _embeddings_refused(name, config, lora):
        window = " with a sliding window" if getattr(config, "sliding_window", None) is not None else ""
        return f"vLLM {vllm_version} cannot adapt {', '.join(refused)} of {name}{window if name == _MISTRAL else ''}"
    return None


def _embeddings_refused(name: str, config: Any, lora: LoraShape) -> list[str]:
    """The targets that are embeddings, the head among them, which a vLLM class does not adapt."""
    _, embeddings = _modules(config)
    known = _vllm_class(name).embedding_modules
    return [target for target in lora.targets if target in embeddings and target not in known]


def _modules(config: Any) -> tuple[set[str], set[str]]:
    """Names of a checkpoint's linear layers, and of its embeddings with the head; no weights are allocated."""
    auto: Any = AutoModelForImageTextToText if config.model_type in IMAGE_FAMILIES else AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    head = model.get_output_embeddings()
    linear, embeddings = set(), set()
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if isinstance(module, nn.Embedding) or module is head:
            embeddings.add(name)
        elif isinstance(module, nn.Linear):
            linear.add(name)
    return linear, embeddings


def _llama_like(config: Any) -> bool:
    return getattr(config, "sliding_window", None) is None and getattr(config, "llama_4_scaling", None) is None


def _vllm_class(name: str) -> Any:
    """The class itself: importing it takes a fraction of a second once vLLM is imported."""
    return ModelRegistry.models[name].load_model_cls()
