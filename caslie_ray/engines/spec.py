"""`EngineSpec`: a checkpoint and how to run it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["DTYPES", "GENERATION_KEYS", "EngineSpec", "LoraShape"]

DTYPES = ("float32", "bfloat16", "float16")
GENERATION_KEYS = ("repetition_penalty", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p")


class LoraShape(NamedTuple):
    """Target modules and rank of LoRA adapters.

    Attributes:
        targets: names of modules, such as `q_proj` and `lm_head`.
        rank: the largest rank.
    """

    targets: tuple[str, ...]
    rank: int


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One checkpoint and how to run it.

    Attributes:
        checkpoint: ``miniature:NAME``, ``smollm2``, a folder, a GGUF file, or a hub id.
        engine: name of the engine that runs it.
        revision: branch, tag or commit of a hub id; None is the default branch. See `revisions.pinned`.
        dtype: type of the weights, one of `DTYPES`.
        context: maximum tokens of prompt and answer together.
        max_new_tokens: maximum tokens of a generated answer.
        batch_size: maximum requests per batch.
        batch_tokens: maximum tokens per batch, including padding and answers; a longer request runs alone.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        gpus: GPUs of the engine: a fraction is its share of one GPU's memory; 2 and more split the model (vLLM within
            layers, transformers between layers); 0 depends on `device`: one GPU, or the CPU.
        generation: generation settings by name, of `GENERATION_KEYS`; greedy if empty.
        adapters: folders of LoRA adapters, by the names that requests use.

    Raises:
        ValueError: a setting is out of its range, or has an unknown name.
    """

    checkpoint: str
    engine: str = "transformers"
    revision: str | None = None
    dtype: str = "float32"
    context: int = 2048
    max_new_tokens: int = 64
    batch_size: int = 16
    batch_tokens: int = 16384
    device: str = "auto"
    gpus: float = 0.0
    generation: Mapping[str, float | int | bool] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("context", "max_new_tokens", "batch_size", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.max_new_tokens >= self.context:
            raise ValueError(
                f"max_new_tokens is {self.max_new_tokens}, which leaves no room for a prompt in a context of "
                f"{self.context}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
        for name in self.generation:
            if name not in GENERATION_KEYS:
                near = difflib.get_close_matches(name, GENERATION_KEYS, n=1, cutoff=0.0)[0]
                raise ValueError(f"generation has no setting {name!r}; did you mean {near!r}?")

    @property
    def generate_budget(self) -> int:
        """Maximum prompt tokens of a `generate` request."""
        return self.context - self.max_new_tokens

    @property
    def choose_budget(self) -> int:
        """Maximum prompt tokens of a `choose` request, whose answer is one token."""
        return self.context - 1
