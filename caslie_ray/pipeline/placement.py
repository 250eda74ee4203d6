"""Sizing of replica pools: resources per replica, upper limits, and a check that the minimum fits the cluster."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from caslie_ray.cluster.capacity import cluster_shortage
from caslie_ray.cluster.connection import Connection
from caslie_ray.cluster.shortage import Need
from caslie_ray.engines import EngineSpec, overlap
from caslie_ray.errors import PoolDown
from caslie_ray.roles import Role

__all__ = ["PoolPlan", "pool_plans", "refuse_what_cannot_fit", "size_pools"]

# Replicas to request if the cluster's limit is unknown: those without room stay pending.
_UNKNOWN_LIMIT = 64
# An engine call has a time limit, and one that fails is repeated in parts: few requests, but enough to sort by length.
_CALL_ROWS = 64


@dataclass(frozen=True)
class PoolPlan:
    """A pool of replicas of one checkpoint.

    Attributes:
        key: identifier of the pool.
        name: the model's name in the profile.
        spec: what a replica loads.
        cpus: CPU cores per replica.
        gpus: GPUs per replica.
        memory_gib: main memory per replica, in GiB.
        minimum: replicas that must be ready before work starts.
        maximum: upper limit of replicas; None: as many as fit, see `size_pools`.
        needed: whether the job fails if the pool is down.
        labels: label selectors of nodes, in order of preference; () for any node.
    """

    key: str
    name: str
    spec: EngineSpec
    cpus: float
    gpus: float
    memory_gib: float
    minimum: int
    maximum: int | None
    needed: bool = True
    labels: tuple[Mapping[str, str], ...] = ()

    @property
    def slots(self) -> int:
        """Concurrent batches per replica."""
        return overlap(self.spec.engine)

    @property
    def call_rows(self) -> int:
        """Upper limit of requests per engine call: full batches."""
        return max(1, _CALL_ROWS // self.spec.batch_size) * self.spec.batch_size

    @property
    def limit(self) -> int:
        """Upper limit of replicas; the minimum if `maximum` is None."""
        return self.minimum if self.maximum is None else self.maximum

    @property
    def needs(self) -> dict[str, float]:
        """Resources per replica, by Ray's resource names; memory in bytes."""
        return {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory_gib * 2**30}


def pool_plans(roles: Sequence[Role], needed: Collection[str | None] | None = None) -> list[PoolPlan]:
    """Return one pool per checkpoint of the roles.

    Args:
        roles: the roles.
        needed: names of the roles that the job requires; None for all.
    """
    plans: dict[str, PoolPlan] = {}
    for role in roles:
        need = role.resources
        plans.setdefault(
            role.pool,
            PoolPlan(
                role.pool, role.name, role.spec, need.cpus, need.gpus, need.memory_gib,
                role.replicas.min, role.replicas.max, needed is None or role.name in needed,
                need.labels,
            ),
        )  # fmt: skip
    return list(plans.values())


def size_pools(plans: Sequence[PoolPlan], rows: int, limits: Mapping[str, float] | None) -> list[PoolPlan]:
    """Set the upper limit of each pool that has none.

    The first such pool gets the resources that the others leave: that is the captioner's, which generates text and is
    many times slower than a voter. Others stay at their minimum. No pool gets more replicas than there are batches.

    Args:
        plans: pools that run at the same time, the captioner's first.
        rows: rows to answer.
        limits: the cluster's maximum resources, by Ray's resource names; None if unknown.
    """
    first = next((plan for plan in plans if plan.maximum is None), None)
    if first is None:
        return list(plans)
    others = [plan for plan in plans if plan is not first]
    room = _UNKNOWN_LIMIT
    if limits is not None:
        rest = {
            unit: (limits.get(unit, 0.0) - sum(plan.limit * plan.needs[unit] for plan in others)) / need
            for unit, need in first.needs.items()
            if need and (unit != "memory" or unit in limits)  # a launcher's file rarely lists memory
        }
        room = math.floor(min(rest.values(), default=_UNKNOWN_LIMIT) + 1e-6)
    batches = math.ceil(rows / (first.spec.batch_size * first.slots))
    largest = max(first.minimum, min(room, batches))
    return [replace(plan, maximum=largest if plan is first else plan.limit) for plan in plans]


def refuse_what_cannot_fit(plans: Sequence[PoolPlan], connection: Connection) -> None:
    """Check that the minimum replicas of pools that run at the same time fit the cluster, now or after it grows.

    On a joined cluster, optional models are not counted: the job continues without them after a timeout.

    Args:
        plans: the pools.
        connection: how this process is connected to Ray.

    Raises:
        PoolDown: they can never fit; the message says what is missing and how to fix it.
    """
    counted = [plan for plan in plans if plan.needed or not connection.joined]
    shortage = cluster_shortage([Need(plan.name, plan.needs, plan.minimum) for plan in counted], connection)
    if shortage is None:
        return
    staged = "run one model at a time (schedule=staged), " if len(plans) > 1 and shortage.alone else ""
    raise PoolDown(
        f"{shortage.reason}; {staged}lower resources, alone or pool.min of these models in the profile,"
        f" or {shortage.mend}"
    )
