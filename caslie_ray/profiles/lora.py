"""The LoRA adapter."""

from __future__ import annotations

from pydantic import Field

from caslie_ray.profiles._base import Listed, Positive, Settings

__all__ = ["LoraSettings"]

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraSettings(Settings):
    """The adapter."""

    rank: Positive = 16
    """Rank of the adapter's matrices."""

    alpha: Positive = 16
    """The adapter's output is scaled by alpha / rank."""

    targets: Listed[str] = Field(default=(*_PROJECTIONS, "lm_head"), min_length=1)
    """Modules that get an adapter: all projection layers and the language modeling head."""

    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Dropout on the adapter's inputs. Above 0 the result depends on the number of workers and on the micro-batches."""
