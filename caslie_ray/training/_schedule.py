"""The learning rate of each step (paper Appendix D)."""

from __future__ import annotations

import math

__all__ = ["rate_at"]


def rate_at(step: int, steps: int, warmup: int, peak: float) -> float:
    """Return the learning rate of a step: it rises in a line to the peak, then falls along half a cosine to nought.

    Args:
        step: counted from 0.
        steps: of the whole training.
        warmup: of them, those over which the rate rises.
        peak: the highest rate.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
