"""State of pools and replicas in the monitor of a chain, and its answers to replicas and to the driver."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.pipeline.load_policy import LoadPolicy
from caslie_ray.pipeline.placement import PoolPlan

__all__ = ["Counts", "Orders", "Pool", "PoolView", "Replica"]


class Counts(NamedTuple):
    """What one engine process has done since its replica started; see `PoolStats`."""

    calls: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    busy_s: float = 0.0
    choosing_s: float = 0.0
    deaths: int = 0


class Orders(NamedTuple):
    """What a replica learns when it reports.

    Attributes:
        down: why its pool answers nothing any more; None while it does.
        leave: whether its node is about to be taken away.
        end: whether its chain has ended.
    """

    down: str | None
    leave: bool = False
    end: bool = False


class PoolView(NamedTuple):
    """A pool as the driver sees it.

    Attributes:
        stats: its counters.
        limit: upper limit of its replicas.
        needed: whether the job ends where it is down.
        avoid: ids of the nodes on which its replicas cannot load their model.
        error: why it is down, with its name; None while it is not.
        unplaced: whether no replica of it runs, not even one that passes blocks through.
        stuck: whether the chain waits for lost replicas of it that find no room.
    """

    stats: PoolStats
    limit: int
    needed: bool
    avoid: frozenset[str]
    error: str | None
    unplaced: bool
    stuck: bool


@dataclass
class Replica:
    """A replica by its last report.

    Attributes:
        node: id of its node.
        seen: when it last reported, in seconds of the monotonic clock.
        counts: its counters.
        details: figures of its engine; see `PoolStats`.
        blocks: blocks that it works on.
        ready: whether its model is loaded.
        failed: whether its model cannot be loaded, whatever is tried.
        leaving: whether its node is about to be taken away.
        former: whether it is of an earlier chain.
    """

    node: str
    seen: float
    counts: Counts = Counts()
    details: Mapping[str, float] = field(default_factory=dict)
    blocks: int = 0
    ready: bool = False
    failed: bool = False
    leaving: bool = False
    former: bool = False


@dataclass
class Pool:
    """A pool, its replicas, and what was decided about it.

    Attributes:
        plan: its size and resources.
        stats: its counters.
        policy: decides about failures to load.
        heard: since when it has had no replica and no news, in seconds of the monotonic clock.
        replicas: replicas that report, by name.
        silent: replicas that stopped to report, by name: Ray Data released them, or they were lost.
        lost: names of the replicas that were lost with blocks, which Ray keeps for them, and are not back yet.
        answered: requests answered when an engine last failed.
        moves: replicas in a row that left a node on which the model cannot be loaded.
        trouble: the last failure to load.
        error: why it is down, with its name; None while it is not.
    """

    plan: PoolPlan
    stats: PoolStats
    policy: LoadPolicy
    heard: float = field(default_factory=time.monotonic)
    replicas: dict[str, Replica] = field(default_factory=dict)
    silent: dict[str, Replica] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    answered: int = 0
    moves: int = 0
    trouble: str = ""
    error: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no replica works on a block or loads its model."""
        return not any(
            replica.blocks or not (replica.ready or replica.failed or self.stats.down)
            for replica in self.replicas.values()
        )

    def known(self, name: str) -> Replica | None:
        """Return a replica that gives a sign of life; None if it is unknown."""
        if name in self.silent and not self.silent[name].former:
            self.replicas[name] = self.silent.pop(name)
            self.lost.discard(name)
        replica = self.replicas.get(name) or self.silent.get(name)
        if replica is not None:
            replica.seen = time.monotonic()
        return replica

    def add(self, new: Counts, old: Counts) -> None:
        """Add what a replica has counted since its last report."""
        for name, value in new._asdict().items():
            setattr(self.stats, name, getattr(self.stats, name) + value - getattr(old, name))
