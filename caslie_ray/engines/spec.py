"""What an engine must know to load a checkpoint and to run it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["DTYPES", "GENERATION_KEYS", "EngineSpec", "LoraShape"]

DTYPES = ("float32", "bfloat16", "float16")
GENERATION_KEYS = ("repetition_penalty", "min_new_tokens", "do_sample", "temperature", "top_k", "top_p")


class LoraShape(NamedTuple):
    """Which modules LoRA adapters change, and how large the adapters are.

    Attributes:
        targets: names of modules, such as `q_proj` and `lm_head`.
        rank: the largest rank of their matrices.
    """

    targets: tuple[str, ...]
    rank: int


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One checkpoint and how to run it.

    Attributes:
        checkpoint: ``miniature:NAME``, ``smollm2``, a folder, a GGUF file, or a hub id.
        engine: name of the engine that runs it.
        revision: branch, tag or commit of a hub id; None takes the default branch. See `revisions.pinned`.
        dtype: type of the weights, one of `DTYPES`.
        context: tokens at most of prompt and answer together.
        max_new_tokens: tokens at most of a generated answer.
        batch_size: requests at most in one batch.
        batch_tokens: tokens at most in one batch, padding and answers included; a longer request runs alone.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        gpus: GPUs that the engine may use: a fraction is its share of one GPU's memory, 2 and more split the
            model over so many (vLLM each layer, transformers between layers), and 0 leaves it to the device: one
            GPU, or the CPU.
        generation: settings of generation by name, of `GENERATION_KEYS`; greedy where it is empty.
        adapters: folders of LoRA adapters by the names that requests call them.

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
        """Tokens that a prompt may have when an answer is generated."""
        return self.context - self.max_new_tokens

    @property
    def choose_budget(self) -> int:
        """Tokens that a prompt may have when a choice is made: the answer is one token."""
        return self.context - 1
