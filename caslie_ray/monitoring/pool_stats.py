"""What a pool of replicas has done: counted by its stages, shown in progress lines, metrics and summaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["PoolStats", "add_details"]


@dataclass
class PoolStats:
    """Counters of one pool.

    Attributes:
        name: the model.
        ready: replicas that have loaded the model and are alive.
        calls: engine calls that returned.
        requests: requests answered without a failure.
        prompt_tokens: tokens read.
        new_tokens: tokens generated.
        busy_s: seconds in which a replica computed, summed over replicas; overlapping calls count once.
        choosing_s: the share of `busy_s` spent on votes rather than text.
        load_s: load time of the slowest replica, in seconds.
        deaths: engine processes and replicas that were lost or failed to start.
        down: why the pool answers nothing any more; None while it does.
        details: counters of the engines of live replicas.
    """

    name: str
    ready: int = 0
    calls: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    busy_s: float = 0.0
    choosing_s: float = 0.0
    load_s: float = 0.0
    deaths: int = 0
    down: str | None = None
    details: dict[str, float] = field(default_factory=dict)


def add_details(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sum engine counters by name; for names that end in ``_peak``, take the maximum."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            before = total.get(name, 0.0)
            total[name] = max(before, value) if name.endswith("_peak") else before + value
    return total
