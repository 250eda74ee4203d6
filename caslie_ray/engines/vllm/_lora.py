"""Which LoRA adapters vLLM can apply to a checkpoint, according to vLLM's model classes."""

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

from caslie_ray.engines._architectures import IMAGE_ARCHITECTURES
from caslie_ray.engines.spec import LoraShape

__all__ = ["RANKS", "ImportRefusal", "class_name", "class_with_adapters", "lora_refusal"]

RANKS: tuple[int, ...] = tuple(sorted(get_args(MaxLoRARanks)))
"""LoRA ranks for which vLLM has kernels."""

_MISTRAL, _LLAMA = "MistralForCausalLM", "LlamaForCausalLM"


class ImportRefusal(str):
    """A refusal caused by vLLM's installation: importing the module of a model class raises."""

    __slots__ = ()


def class_name(config: Any) -> str:
    """Return the name of the model class in a checkpoint's configuration."""
    # A GGUF file names no class; it is a text model.
    return str((config.architectures or [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)])[0])


def class_with_adapters(config: Any, lora: LoraShape) -> str:
    """Return the name of the vLLM class that loads a checkpoint with adapters.

    vLLM's Mistral class supports no adapter on `lm_head`. Its Llama class does, and builds the same network from the
    same weights unless the checkpoint has sliding-window attention or scales attention by position.
    """
    name = class_name(config)
    if name == _MISTRAL and _embeddings_refused(name, config, lora) and _llama_like(config):
        return _LLAMA
    return name


def lora_refusal(config: Any, lora: LoraShape) -> str | None:
    """Return why vLLM cannot apply adapters of this shape to a checkpoint; None if it can.

    Only the configuration is read: vLLM adapts all linear layers, and the embeddings that its class lists.
    """
    if class_name(config) not in ModelRegistry.get_supported_archs():
        return f"vLLM {vllm_version} has no {class_name(config)}"
    try:
        name = class_with_adapters(config, lora)
        supported = supports_lora(_vllm_class(name))
    except Exception as error:  # importing a model's module may raise anything, for example on a machine without a GPU
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
    """Return the targets that are embeddings or the head and that a vLLM class does not adapt."""
    _, embeddings = _modules(config)
    known = _vllm_class(name).embedding_modules
    return [target for target in lora.targets if target in embeddings and target not in known]


def _modules(config: Any) -> tuple[set[str], set[str]]:
    """Return the names of linear layers, and of embeddings and head; no weights are allocated."""
    auto: Any = AutoModelForImageTextToText if config.model_type in IMAGE_ARCHITECTURES else AutoModelForCausalLM
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
    """Return the class; takes a fraction of a second once vLLM is imported."""
    return ModelRegistry.models[name].load_model_cls()
