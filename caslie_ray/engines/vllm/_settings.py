"""vLLM's engine arguments and sampling parameters for an `EngineSpec`."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind

from caslie_ray.engines._base import Request
from caslie_ray.engines._config_facts import end_ids
from caslie_ray.engines._preprocessor import Preprocessor
from caslie_ray.engines._replica_memory import BLOCK_CPU, BLOCK_GPU, kv_cache_bytes
from caslie_ray.engines._source import Source
from caslie_ray.engines.spec import EngineSpec, LoraShape
from caslie_ray.engines.vllm._lora import RANKS, class_name, class_with_adapters
from caslie_ray.engines.vllm._support import runs_on_cpu

__all__ = ["answer_settings", "engine_settings", "limited"]

_MEMORY = 0.9  # fraction of its GPU memory that vLLM may claim; the rest is for what it does not count


def engine_settings(
    spec: EngineSpec, source: Source, preprocessor: Preprocessor, ranks: list[int], lora: LoraShape | None = None
) -> AsyncEngineArgs:
    """Return the arguments of vLLM's engine.

    Args:
        spec: the checkpoint and how to run it.
        source: its files.
        preprocessor: its configuration, tokenizer, processor and chat template.
        ranks: LoRA ranks of the adapters.
        lora: joint shape of the adapters.
    """
    cpu = runs_on_cpu(spec)
    settings: dict[str, Any] = {"dtype": spec.dtype}
    if cpu or 0 < spec.gpus < 1:
        # vLLM would derive it from the card's free memory before and after loading, and count the weights of another
        # process that loads meanwhile as its own.
        settings["kv_cache_memory_bytes"] = kv_cache_bytes(preprocessor.config, spec, BLOCK_CPU if cpu else BLOCK_GPU)
    if not cpu:
        settings["gpu_memory_utilization"] = _MEMORY * (spec.gpus if 0 < spec.gpus < 1 else 1.0)
    if ranks:
        settings["max_lora_rank"] = next((rank for rank in RANKS if rank >= max(ranks)), max(ranks))
        # One more slot than adapters: on the CPU vLLM applies the last slot to a request without an adapter that shares
        # a batch with others (vllm#48421); an empty slot changes nothing.
        settings["max_loras"] = settings["max_cpu_loras"] = len(ranks) + cpu
    if lora is not None and (loaded_as := class_with_adapters(preprocessor.config, lora)) != class_name(
        preprocessor.config
    ):
        settings["hf_overrides"] = {"architectures": [loaded_as]}
    if preprocessor.architecture.takes_images:
        settings["limit_mm_per_prompt"] = {"image": 1}
        settings["mm_processor_kwargs"] = {"backend": "pil"}
        settings["mm_processor_cache_gb"] = 0  # each image occurs in few contexts and takes megabytes
    return AsyncEngineArgs(
        model=source.location,
        # Mistral's repositories also have params.json and consolidated.safetensors, which vLLM would prefer.
        config_format="hf",
        load_format="safetensors",
        trust_remote_code=False,
        max_model_len=spec.context,
        max_num_seqs=spec.batch_size,
        max_num_batched_tokens=max(spec.batch_tokens, spec.batch_size),
        tensor_parallel_size=max(1, int(spec.gpus)),
        enable_prefix_caching=True,
        enable_lora=bool(ranks),
        enforce_eager=cpu,  # on a CPU, compiling takes longer than it saves
        generation_config="vllm",
        use_tqdm_on_load=False,
        disable_log_stats=True,
        seed=0,
        **settings,
    )


def answer_settings(spec: EngineSpec, source: Source, preprocessor: Preprocessor) -> SamplingParams:
    """Return sampling parameters that generate text as transformers does with the same settings."""
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
        stop_token_ids=sorted(end_ids(_own_generation(source), preprocessor.config, preprocessor.tokenizer)),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def limited(settings: SamplingParams, request: Request) -> SamplingParams:
    """Return the parameters of one request: these, unless it has a smaller limit of tokens."""
    most = settings.max_tokens
    if request.max_new_tokens is None or most is None or request.max_new_tokens >= most:
        return settings
    smaller = settings.clone()
    smaller.max_tokens = request.max_new_tokens
    smaller.min_tokens = min(smaller.min_tokens, request.max_new_tokens)
    return smaller


def _own_generation(source: Source) -> Any:
    try:
        return GenerationConfig.from_pretrained(source.location, **source.arguments)
    except OSError:  # optional in a checkpoint
        return None
