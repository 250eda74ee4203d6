"""Errors that end a training."""

from __future__ import annotations

__all__ = ["TrainingError", "too_large"]


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


def too_large(sample_id: str, tokens: int, context: int, reason: str) -> str:
    """Return the error message for a sample that runs out of memory alone."""
    return (
        f"sample {sample_id} does not fit the memory: its {tokens:,} tokens ran out of it in a micro-batch of its own"
        f" ({reason}). Lower lineup.base.context (now {context}), set training.gradient_checkpointing=true or"
        " training.quantize=4bit, or use a larger GPU; a lower training.micro_tokens alone does not help"
    )
