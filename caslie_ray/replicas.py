"""One replica of a model: the actor that holds the engine, and what the router knows of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from caslie_ray.engines import Choice, EngineSpec, Generation, Request, load_engine

__all__ = ["Held", "PoolStats", "Replica", "add_details"]


@dataclass
class PoolStats:
    """What a pool has done so far.

    Attributes:
        name: the model.
        ready: replicas that hold it now.
        calls: batches answered.
        requests: requests answered.
        prompt_tokens: tokens read.
        new_tokens: tokens written.
        busy_s: seconds that its replicas worked, summed over them; batches that overlap count once.
        choosing_s: the part of them that went into choices, and not into text.
        load_s: seconds that the slowest replica took to load.
        deaths: replicas lost, or that could not start.
        down: why nothing is asked of it any more; None while it answers.
        details: what its engines count beside, of the replicas that still live.
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


class Replica:
    """An actor that holds one engine."""

    def __init__(self, spec: EngineSpec) -> None:
        self._engine = load_engine(spec)

    def ready(self) -> str:
        """Return the id of the node it runs on, once the model is loaded."""
        return str(ray.get_runtime_context().get_node_id())

    def generate(self, requests: list[Request]) -> list[Generation]:
        """Answer with text."""
        return self._engine.generate(requests)

    def choose(self, requests: list[Request], choices: Sequence[str]) -> list[Choice]:
        """Answer with a probability for each choice."""
        return self._engine.choose(requests, choices)

    def details(self) -> dict[str, float]:
        """Return what the engine counts of itself."""
        return dict(self._engine.stats().details)

    def close(self) -> None:
        """End the engine, and the processes that it has started."""
        self._engine.close()


@dataclass(eq=False)
class Held:
    """A replica as the router sees it.

    Attributes:
        actor: its handle.
        node: id of its node.
        slots: batches that it takes at once.
        calls: batches that it has now.
        choosing: how many of them are choices.
        alone: it is kept, or at work, for one batch that shares it with no other.
        lost: it is gone.
        since: when `calls` last changed, in seconds of the monotonic clock.
    """

    actor: Any
    node: str
    slots: int
    calls: int = 0
    choosing: int = 0
    alone: bool = False
    lost: bool = False
    since: float = 0.0

    def begin(self, method: str, stats: PoolStats) -> None:
        """Note that a batch was handed over."""
        self._tick(stats)
        self.calls += 1
        self.choosing += method == "choose"

    def end(self, method: str, stats: PoolStats) -> None:
        """Note that a batch came back, or never will."""
        self._tick(stats)
        self.calls -= 1
        self.choosing -= method == "choose"

    def _tick(self, stats: PoolStats) -> None:
        now = time.monotonic()
        if self.calls:
            stats.busy_s += now - self.since
            stats.choosing_s += (now - self.since) * self.choosing / self.calls
        self.since = now


def add_details(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add up what engines count; of what is named ``…_peak`` the greatest is taken."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            held = total.get(name, 0.0)
            total[name] = max(held, value) if name.endswith("_peak") else held + value
    return total
