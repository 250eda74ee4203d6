"""Learning rate schedule (paper Appendix D)."""

from __future__ import annotations

import math

__all__ = ["rate_at"]


def rate_at(step: int, steps: int, warmup: int, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to zero.

    Args:
        step: from 0.
        steps: number of steps of the training.
        warmup: number of warm-up steps.
        peak: the highest rate.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
