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
    """Peak learning rate."""

    global_batch: Positive = 128
    """Instructions per optimizer step, over all workers."""

    micro_batch: Positive = 16
    """Maximum instructions per forward pass of a worker. Changes memory and speed, not the result."""

    micro_tokens: Positive = 8192
    """Maximum tokens per forward pass of a worker, padding included. Changes memory and speed, not the result. Lowered
    on a worker whose GPU is too small, by estimate or after it runs out of memory."""

    packing: bool = False
    """Concatenate short instructions instead of padding. Changes speed, not the result. A pack has at most 2,048
    tokens, or `micro_tokens` if FlashAttention is installed (untested: it needs a GPU)."""

    clip: float = Field(default=1.0, gt=0.0)
    """Maximum gradient norm (gradient clipping)."""

    weight_decay: float = Field(default=0.0, ge=0.0)
    """AdamW weight decay."""

    epochs: Positive = 3
    """Epochs."""

    warmup: Fraction = 0.05
    """Share of the steps used for linear warm-up."""

    decay: Literal["cosine"] = "cosine"
    """Decay of the learning rate after warm-up: cosine to zero."""

    lora: LoraSettings = LoraSettings()
    """The adapter."""

    variants: Listed[Literal["caslie", "uia", "text"]] = ("caslie",)
    """Instructions to train on, one model per variant: with captions that won, all captions, none. [] trains
    nothing."""

    checkpoint_steps: Positive = 50
    """Steps between checkpoints: the most that a lost node costs. A preemption notice triggers one."""

    validations: Positive = 3
    """Validations (loss and metric on the split validation), evenly spaced, the last one at the end of training."""

    validation_samples: Positive = 500
    """Maximum samples of the split validation that are used."""

    keep: Literal["best", "last"] = "best"
    """Which adapter is kept: that with the lowest validation loss, or that of the last step."""

    merge: bool = False
    """Also write each model with its adapter merged into the base: for engines without LoRA; as large as the base."""

    patience: Positive | None = None
    """Early stopping after so many validations without improvement; null: off."""

    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: a third slower, much less memory."""

    quantize: Literal["none", "4bit"] = "none"
    """4bit: the base's matrices as 4-bit NormalFloat (QLoRA), by bitsandbytes, an extra. Untested: it needs a GPU."""

    shard: bool = False
    """Shard the base's weights over the workers (FSDP), for a base that is too large for one GPU. Slower, and
    validations compute the loss only. Tested on CPUs, untested on GPUs."""

    dtype: Literal["float32", "bfloat16"] | None = None
    """Data type of the base's weights; null: as in the lineup. The adapter is always float32."""

    max_failures: Whole = 20
    """How often training resumes from its last checkpoint after workers or nodes were lost without notice. Errors that
    would recur, such as a NaN loss, end the job at once."""

    max_preemptions: Whole | None = None
    """How often training resumes from its last checkpoint after a node was drained, as before a spot preemption; null:
    no limit. These do not count as failures, unless a node is lost before its deadline."""

    trackers: Listed[Literal["mlflow", "wandb"]] = ()
    """Trackers in addition to TensorBoard, which is always written; each is an extra of this package."""

    resources: Resources = Resources()
    """What a worker requests from the cluster."""

    seed: Whole = 0
    """Seed of the adapter's initial weights and of the order of the instructions."""

    num_workers: Workers = Workers()
    """Minimum and maximum workers; training grows and shrinks between them."""

    @model_validator(mode="after")
    def _one_way_to_save_memory(self) -> Self:
        if self.shard and self.quantize != "none":
            raise ValueError("training.shard and training.quantize=4bit do not go together: choose one")
        return self

    def steps_per_epoch(self, instructions: int) -> int:
        """Optimizer steps for one pass over so many instructions; the last batch may be smaller."""
        return math.ceil(instructions / self.global_batch)

    def total_steps(self, instructions: int) -> int:
        """Optimizer steps of the whole training."""
        return self.epochs * self.steps_per_epoch(instructions)

    def validation_steps(self, steps: int) -> frozenset[int]:
        """The steps after which a training of so many steps is validated."""
        return frozenset(math.ceil(steps * part / self.validations) for part in range(1, self.validations + 1))

    def warmup_steps(self, instructions: int) -> int:
        """Optimizer steps of linear warm-up."""
        return math.ceil(self.warmup * self.total_steps(instructions))
