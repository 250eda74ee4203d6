"""Loads a checkpoint and its LoRA adapters into a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from caslie_ray.engines._lora_adapters import read_adapters
from caslie_ray.engines._preprocessor import Preprocessor, load_preprocessor
from caslie_ray.engines._replica_memory import GIB
from caslie_ray.engines._source import Source, find_source
from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.engines.transformers._attention import GROUPED_SDPA
from caslie_ray.engines.transformers._device_map import split_over
from caslie_ray.errors import EngineError

__all__ = ["LoadedCheckpoint", "load_checkpoint"]


class LoadedCheckpoint(NamedTuple):
    """A checkpoint in memory.

    Attributes:
        model: the transformers model.
        adapters: PEFT's wrapper of the model; None without adapters.
        preprocessor: configuration, tokenizer, processor and chat template.
    """

    model: Any
    adapters: Any
    preprocessor: Preprocessor


def load_checkpoint(spec: EngineSpec, devices: Sequence[torch.device]) -> LoadedCheckpoint:
    """Load a checkpoint and its adapters on these devices.

    Raises:
        EngineError: it cannot be loaded; the message names it.
    """
    if len(devices) > 1 and spec.adapters:
        raise EngineError(
            f"checkpoint {spec.checkpoint} is split over {len(devices)} GPUs, and transformers then takes no adapters"
            f" ({', '.join(spec.adapters)}); set engine to vllm, or resources.gpus (in"
            " schedule=staged and in predict: alone.gpus) to 1"
        )
    try:
        source = find_source(spec)
        preprocessor = load_preprocessor(spec, source)
        model = _load_model(spec, source, preprocessor, devices)
        return LoadedCheckpoint(model, _load_adapters(spec, model), preprocessor)
    except EngineError:
        raise
    except Exception as error:  # each loader raises types of its own; the user needs the checkpoint's name
        raise EngineError(f"checkpoint {spec.checkpoint} cannot be loaded: {type(error).__name__}: {error}") from error


def _load_model(spec: EngineSpec, source: Source, preprocessor: Preprocessor, devices: Sequence[torch.device]) -> Any:
    auto: Any = AutoModelForImageTextToText if preprocessor.architecture.takes_images else AutoModelForCausalLM
    device_map: dict[str, Any] = {"": devices[0]}
    if len(devices) > 1:
        device_map = _split([torch.cuda.mem_get_info(device) for device in devices], preprocessor.config, spec)
    model, info = auto.from_pretrained(
        source.location,
        **source.arguments,
        config=preprocessor.config,
        dtype=getattr(torch, spec.dtype),
        device_map=device_map,
        attn_implementation=GROUPED_SDPA,
        use_safetensors=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:  # transformers would initialize them at random
        names = sorted(info["missing_keys"])
        raise EngineError(f"checkpoint {spec.checkpoint} lacks {len(names)} weights, the first is {names[0]}")
    return model.eval()


def _split(memory: Sequence[tuple[int, int]], config: Any, spec: EngineSpec) -> dict[str, int]:
    """Split a checkpoint over GPUs by their free memory.

    Args:
        memory: free and total bytes of each GPU, in order.
        config: the checkpoint's configuration.
        spec: how it is run.

    Raises:
        LoadError: it would fit these GPUs if other processes did not use their memory.
        EngineError: it does not fit these GPUs.
    """
    try:
        return split_over([free for free, _ in memory], config, spec)
    except EngineError as error:
        split_over([total for _, total in memory], config, spec)  # final if it does not fit empty GPUs either
        used = ", ".join(f"{(total - free) / GIB:.1f} of {total / GIB:.1f}" for free, total in memory)
        reason = f"{error}; other processes use {used} GiB of these GPUs"
        mend = "wait until the other processes have freed their memory, or end them"
        raise LoadError(LoadFailure("retry", reason, mend)) from error


def _load_adapters(spec: EngineSpec, model: Any) -> Any:
    """Load the adapters into the model; return PEFT's wrapper, or None without adapters."""
    if not spec.adapters:
        return None
    from peft import LoraConfig, PeftModel  # slow to import; voters and the captioner have no adapters

    wrapper: Any = None
    for name, adapter in read_adapters(spec.adapters).items():
        try:
            if wrapper is None:
                wrapper = PeftModel(model, LoraConfig.from_pretrained(adapter.path), adapter_name=name)
            result = wrapper.load_adapter(adapter.path, name)
        except Exception as error:  # PEFT raises many types; the user needs the adapter's name
            raise EngineError(f"adapter {name} ({adapter.path}) does not fit {spec.checkpoint}: {error}") from error
        lacks = [key for key in result.missing_keys if f".{name}." in key]
        if result.unexpected_keys or lacks:
            what = f"which has no {result.unexpected_keys[0]}" if result.unexpected_keys else f"it lacks {lacks[0]}"
            raise EngineError(f"adapter {name} ({adapter.path}) does not fit {spec.checkpoint}, {what}")
    return wrapper.eval()
