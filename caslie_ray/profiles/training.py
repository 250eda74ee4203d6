"""How uniM³ is fine-tuned (paper Appendix D)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from caslie_ray.profiles._base import Fraction, Listed, Positive, Settings, Whole
from caslie_ray.profiles.lineup import Pool

__all__ = ["LoraSettings", "TrainingSettings"]

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraSettings(Settings):
    """The adapter."""

    rank: Positive = 16
    """Rank of the adapter's matrices."""

    alpha: Positive = 16
    """The adapter's output is scaled by alpha / rank."""

    targets: Listed[str] = Field(default=(*PROJECTIONS, "lm_head"), min_length=1)
    """Modules that get an adapter: all projection layers and the language modelling head."""


class TrainingSettings(Settings):
    """Hyperparameters; the defaults are the paper's."""

    learning_rate: float = Field(default=1e-4, gt=0.0)
    """Highest learning rate."""

    global_batch: Positive = 128
    """Instructions an optimiser step, over all workers."""

    micro_batch: Positive = 4
    """Instructions a forward pass on one worker. Changes memory and speed, not the result."""

    epochs: Positive = 3
    """Times that all instructions are seen."""

    warmup: Fraction = 0.05
    """Share of the steps over which the learning rate rises."""

    decay: Literal["cosine"] = "cosine"
    """How the learning rate falls after the warm-up."""

    lora: LoraSettings = LoraSettings()
    """The adapter."""

    seed: Whole = 0
    """Seed of the adapter's first weights and of the order of the instructions."""

    num_workers: Pool = Pool()
    """Fewest and most workers; the run grows and shrinks between them."""

    def gradient_accumulation_steps(self, world_size: int) -> int:
        """Forward passes that each of `world_size` workers makes for one optimiser step."""
        if world_size < 1:
            raise ValueError(f"world_size is {world_size}; there is at least one worker")
        return math.ceil(self.global_batch / (self.micro_batch * world_size))

    def steps_per_epoch(self, instructions: int) -> int:
        """Optimiser steps for one pass over so many instructions; the last batch may be smaller."""
        return math.ceil(instructions / self.global_batch)

    def total_steps(self, instructions: int) -> int:
        """Optimiser steps of the whole training."""
        return self.epochs * self.steps_per_epoch(instructions)

    def warmup_steps(self, instructions: int) -> int:
        """Optimiser steps over which the learning rate rises."""
        return math.ceil(self.warmup * self.total_steps(instructions))
