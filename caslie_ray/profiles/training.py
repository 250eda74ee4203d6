"""How uniM³ is fine-tuned (paper Appendix D)."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from caslie_ray.profiles._base import Fraction, Listed, Positive, Settings, Whole
from caslie_ray.profiles.lora import LoraSettings
from caslie_ray.profiles.pool import Workers
from caslie_ray.profiles.resources import Resources

__all__ = ["TrainingSettings"]


class TrainingSettings(Settings):
    """Hyperparameters; the defaults are the paper's."""

    learning_rate: float = Field(default=1e-4, gt=0.0)
    """Highest learning rate."""

    global_batch: Positive = 128
    """Instructions an optimiser step, over all workers."""

    micro_batch: Positive = 16
    """Instructions a forward pass on one worker, at most. Changes memory and speed, not the result."""

    micro_tokens: Positive = 8192
    """Tokens a forward pass on one worker, at most, padding included. Changes memory and speed, not the result. Lowered
    on a worker whose GPU holds less, by estimate or because it runs out of memory."""

    packing: bool = False
    """Write short instructions one after the other in place of padding. Changes speed, not the result. A pack holds at
    most 2,048 tokens, or `micro_tokens` where FlashAttention is installed (untested: it wants a GPU)."""

    clip: float = Field(default=1.0, gt=0.0)
    """Length to which a longer gradient is cut."""

    weight_decay: float = Field(default=0.0, ge=0.0)
    """Share of the weights that a step takes away, times the learning rate."""

    epochs: Positive = 3
    """Times that all instructions are seen."""

    warmup: Fraction = 0.05
    """Share of the steps over which the learning rate rises."""

    decay: Literal["cosine"] = "cosine"
    """How the learning rate falls after the warm-up."""

    lora: LoraSettings = LoraSettings()
    """The adapter."""

    variants: Listed[Literal["caslie", "uia", "text"]] = ("caslie",)
    """What models are trained on, a model each: captions that won, every caption, none. [] trains nothing."""

    checkpoint_steps: Positive = 50
    """Steps from one checkpoint to the next: what a lost node costs at most. A notice of preemption brings one on."""

    validations: Positive = 3
    """Times that loss and metric are taken on the split validation, evenly over the training, the last at its end."""

    validation_samples: Positive = 500
    """Samples of the split validation that they are taken on, at most."""

    keep: Literal["best", "last"] = "best"
    """The adapter that is kept: of the validation with the lowest loss, or of the last step."""

    merge: bool = False
    """Also write each model with its adapter merged into the base: for engines without LoRA, at the base's size."""

    patience: Positive | None = None
    """Validations in a row without a better one after which training ends early; null: never."""

    gradient_checkpointing: bool = True
    """Compute activations twice in place of keeping them: a third slower, and much less memory."""

    quantize: Literal["none", "4bit"] = "none"
    """4bit: the base's matrices as 4-bit NormalFloat (QLoRA), by bitsandbytes, an extra. Untested: it wants a GPU."""

    shard: bool = False
    """Share the base's weights out among the workers (FSDP), for a base that is too large for one GPU. Slower, and
    validations take the loss alone. Tested on CPUs, untested on GPUs."""

    dtype: Literal["float32", "bfloat16"] | None = None
    """Type of the base's weights; null: as the lineup has it. The adapter is float32 in any case."""

    max_failures: Whole = 20
    """Times that training goes on from its last checkpoint after workers or nodes were lost without notice. What would
    fail again, such as a loss that is no number, ends the job at once."""

    max_preemptions: Whole | None = None
    """Times that training goes on from its last checkpoint after a node was drained, as spot machines are before they
    are taken away; null: without limit. They are no failures, unless a node is lost before its announced time."""

    trackers: Listed[Literal["mlflow", "wandb"]] = ()
    """Where curves go besides TensorBoard, which always has them; each is an extra of this package."""

    resources: Resources = Resources()
    """What a worker asks of the cluster."""

    seed: Whole = 0
    """Seed of the adapter's first weights and of the order of the instructions."""

    num_workers: Workers = Workers()
    """Fewest and most workers; the run grows and shrinks between them."""

    @model_validator(mode="after")
    def _one_way_to_save_memory(self) -> Self:
        if self.shard and self.quantize != "none":
            raise ValueError("training.shard and training.quantize=4bit do not go together: choose one")
        return self

    def steps_per_epoch(self, instructions: int) -> int:
        """Optimiser steps for one pass over so many instructions; the last batch may be smaller."""
        return math.ceil(instructions / self.global_batch)

    def total_steps(self, instructions: int) -> int:
        """Optimiser steps of the whole training."""
        return self.epochs * self.steps_per_epoch(instructions)

    def validation_steps(self, steps: int) -> frozenset[int]:
        """After how many of so many steps loss and metric are taken on held-back samples."""
        return frozenset(math.ceil(steps * part / self.validations) for part in range(1, self.validations + 1))

    def warmup_steps(self, instructions: int) -> int:
        """Optimiser steps over which the learning rate rises."""
        return math.ceil(self.warmup * self.total_steps(instructions))
