"""One replica of a model: the actor that holds the engine, what the router knows of it, and why one was lost."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from caslie_ray.engines import Choice, Engine, EngineSpec, Generation, Request, load_engine
from caslie_ray.engines.load_errors import LoadError, classify
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.pipeline.adapter_download import release_adapters, with_local_adapters
from caslie_ray.pipeline.load_policy import LoadPolicy
from caslie_ray.pipeline.placement import PoolPlan

__all__ = [
    "Held", "PoolState", "PoolStats", "Replica", "add_details", "cause_of", "close_replica", "details_of", "first_line",
    "node_died", "node_lost", "out_of_memory",
]  # fmt: skip

log = logging.getLogger(__name__)

_GRACE_S = 2.0
_UNSEEN_S = 30.0
_LOOK_S = 0.5
_STATS_S = 10.0
_CLOSE_S = 20.0


class Replica:
    """An actor that holds one engine. `ready` loads it; nothing may be asked before that."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._engine: Engine

    def node(self) -> str:
        """Return the id of the node it runs on."""
        return str(ray.get_runtime_context().get_node_id())

    def ready(self) -> str:
        """Load the model and return the id of the node it runs on.

        Raises:
            LoadError: the model cannot be loaded. It carries the reason, and whether a retry may help.
        """
        try:
            self._engine = load_engine(with_local_adapters(self._spec))
        except Exception as error:
            log.exception("loading %s failed", self._spec.checkpoint)
            # The error itself may not unpickle elsewhere, and its frames hold the model's memory.
            raise LoadError(classify(error)) from None
        return self.node()

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
        """End the engine and the processes that it has started, and remove copies of adapters that are not in use."""
        self._engine.close()
        release_adapters()


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
        until: until when it is given batches, in seconds since 1970; None unless its node is to be taken away.
    """

    actor: Any
    node: str
    slots: int
    calls: int = 0
    choosing: int = 0
    alone: bool = False
    lost: bool = False
    since: float = 0.0
    until: float | None = None

    def idle(self) -> bool:
        """Whether it has nothing more to answer."""
        return self.lost or not self.calls

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


@dataclass
class PoolState:
    """A pool as the router sees it.

    Attributes:
        plan: what it holds, and how many replicas it may have.
        stats: what it has done.
        loading: decides about replicas that fail to load.
        heard: time of the last sign that replicas are being started, in seconds of the monotonic clock; in a pause
            before a retry, the end of the pause.
        held: its replicas.
        admitted: replicas that were ever ready.
        watched: value of `admitted` when the pool was last found empty.
        failures: replicas that died in a row.
        poisoned: rows in a row that ended their replica.
        starts: replicas that are being started.
        placed: those of them that have a node, and load.
        watches: tasks that follow an empty pool.
        trouble: why a replica was last not started.
        proof: a call that it has answered.
        changed: notified of every change.
    """

    plan: PoolPlan
    stats: PoolStats
    loading: LoadPolicy
    heard: float = 0.0
    held: list[Held] = field(default_factory=list)
    admitted: int = 0
    watched: int = -1
    failures: int = 0
    poisoned: int = 0
    starts: set[asyncio.Task[None]] = field(default_factory=set)
    placed: set[asyncio.Task[None]] = field(default_factory=set)
    watches: set[asyncio.Task[None]] = field(default_factory=set)
    trouble: str = ""
    proof: tuple[str, Any, tuple[Any, ...]] | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def alive(self) -> int:
        """Replicas that can answer."""
        return len(self.held)

    def open(self) -> list[Held]:
        """The replicas that can be given a batch."""
        now = time.time()
        return [
            held
            for held in self.held
            if not (held.alone or held.lost) and held.calls < held.slots and (held.until is None or now < held.until)
        ]


def add_details(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add up what engines count; of what is named ``…_peak`` the greatest is taken."""
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            held = total.get(name, 0.0)
            total[name] = max(held, value) if name.endswith("_peak") else held + value
    return total


async def details_of(held: Held) -> dict[str, float]:
    """Return what a replica's engine counts of itself; nothing where it does not answer."""
    try:
        told: dict[str, float] = await asyncio.wait_for(held.actor.details.remote(), _STATS_S)
    except (RayError, TimeoutError):
        return {}
    return told


async def close_replica(held: Held) -> None:
    """End a replica, and what its engine has started."""
    with suppress(RayError, TimeoutError):
        await asyncio.wait_for(held.actor.close.remote(), _CLOSE_S)
    ray.kill(held.actor)


def first_line(error: Exception) -> str:
    """Return an error's first line, or its name where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def cause_of(error: Exception) -> str | None:
    """Return the exception that user code raised, where that is why; None where the process just died."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    text = str(error)
    if "actor died because of an error raised in its creation task" in text:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1]
    return None


def node_died(error: Exception) -> bool:
    """Whether an error says itself that a node is gone."""
    return bool(getattr(error, "preempted", False)) or "node has died" in str(error)


def out_of_memory(error: Exception) -> bool:
    """Whether a replica was ended for want of memory: by the cluster, or by an exception of its own."""
    cause = getattr(error, "cause", None)
    return (
        isinstance(error, OutOfMemoryError) or isinstance(cause, MemoryError) or "OutOfMemory" in type(cause).__name__
    )


async def node_lost(node: str, error: Exception) -> bool:
    """Whether a replica's end is its node's doing (a preemption, a crash) and not its own."""
    if isinstance(error, (TimeoutError, RayTaskError)):
        return False
    if node_died(error):
        return True
    # Where nobody saw the process end, the cluster takes a while to notice that the node is gone.
    patience = _UNSEEN_S if isinstance(error, ActorUnavailableError) else _GRACE_S
    begun = time.monotonic()
    while True:
        if not any(info["NodeID"] == node and info["Alive"] for info in ray.nodes()):
            return True
        if time.monotonic() - begun > patience:
            return False
        await asyncio.sleep(_LOOK_S)
