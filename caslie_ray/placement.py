"""Which pools of replicas a lineup needs, and whether a cluster has room for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from caslie_ray.engines import EngineError, EngineSpec, overlap
from caslie_ray.lineup import Role

__all__ = ["PoolDown", "PoolPlan", "pool_plans", "refuse_what_cannot_fit"]


class PoolDown(EngineError):
    """A model cannot be started, or does not stay alive; the message names it and says why."""


@dataclass(frozen=True)
class PoolPlan:
    """One pool: which model it holds, what a replica needs, and whether a job goes on without it."""

    key: str
    name: str
    spec: EngineSpec
    cpus: float
    gpus: float
    memory_gib: float
    minimum: int
    maximum: int
    needed: bool = True

    @property
    def slots(self) -> int:
        """Batches that a replica takes at once."""
        return overlap(self.spec.engine)


def pool_plans(roles: Sequence[Role], needed: Collection[str | None] | None = None) -> list[PoolPlan]:
    """Return one pool for each checkpoint among the roles.

    Args:
        roles: who is asked.
        needed: names of the roles that a job does not go on without; None for all.
    """
    plans: dict[str, PoolPlan] = {}
    for role in roles:
        need = role.resources
        plans.setdefault(
            role.pool,
            PoolPlan(
                role.pool, role.name, role.spec, need.cpus, need.gpus, need.memory_gib,
                role.replicas.min, role.replicas.max, needed is None or role.name in needed,
            ),
        )  # fmt: skip
    return list(plans.values())


def refuse_what_cannot_fit(plans: Sequence[PoolPlan], room: Mapping[str, float]) -> None:
    """Check that the pools' minimum fits a cluster that does not grow.

    Args:
        plans: the pools that are to run together.
        room: what the cluster holds, such as ``{"CPU": 2.0}``.

    Raises:
        PoolDown: it does not fit; the message says what is missing and how to do without.
    """
    for unit, needs in (("GPU", [plan.gpus for plan in plans]), ("CPU", [plan.cpus for plan in plans])):
        held = room.get(unit, 0.0)
        together = sum(need * plan.minimum for need, plan in zip(needs, plans, strict=True))
        if together <= held + 1e-6:
            continue
        names = ", ".join(plan.name for plan, need in zip(plans, needs, strict=True) if need)
        mend = "run one model at a time (schedule=staged) or " if len(plans) > 1 and max(needs) <= held else ""
        raise PoolDown(
            f"{names}: {together:g} {unit}s are needed and this machine has {held:g}; {mend}submit the job to a"
            " larger cluster, or choose another profile"
        )
