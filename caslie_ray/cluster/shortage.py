"""Whether replicas fit the nodes that a cluster has or can start; arithmetic only, no Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Limits", "Need", "NodeGroup", "Shortage", "find_shortage"]

_GIB = 2.0**30
_UNITS = {"GPU": "GPUs", "CPU": "CPUs", "memory": "GiB of memory"}
_EPSILON = 1e-6


@dataclass(frozen=True)
class NodeGroup:
    """Nodes with equal resources.

    Attributes:
        resources: per node, by Ray's unit names; memory in bytes.
        count: maximum number of nodes; may be infinite.
        unlisted: units whose amount is unknown, and so no limit.
    """

    resources: Mapping[str, float]
    count: float = 1
    unlisted: frozenset[str] = frozenset()

    def amount(self, unit: str) -> float:
        """Return the amount of a unit per node."""
        return math.inf if unit in self.unlisted else float(self.resources.get(unit, 0.0))


class Limits(NamedTuple):
    """What replicas must fit into.

    Attributes:
        groups: all nodes that exist or can be started.
        what: subject and verb for a message, such as ``this machine has``.
        mend: another fix for the user, as a clause.
    """

    groups: Sequence[NodeGroup]
    what: str
    mend: str = "submit the job to a larger cluster"


@dataclass(frozen=True)
class Need:
    """Replicas of one kind that must run at once.

    Attributes:
        name: of the model, or of the replica in messages.
        amounts: what one replica takes, by Ray's unit names; memory in bytes.
        count: number of replicas.
    """

    name: str
    amounts: Mapping[str, float]
    count: int = 1


class Shortage(NamedTuple):
    """Why replicas do not fit.

    Attributes:
        reason: what is needed and what exists, as a clause.
        alone: whether each kind of replica would fit without the others.
        mend: how to change the cluster, as a clause.
    """

    reason: str
    alone: bool
    mend: str


def find_shortage(needs: Sequence[Need], limits: Limits) -> Shortage | None:
    """Return why some replicas can never run together; None if they may.

    A shortage that is found is certain, but not every shortage is found: each kind of replica may fit alone, and the
    sum of all may fit the sum of the nodes, although no placement on the nodes exists.
    """
    alone = [reason for need in needs if (reason := _alone(need, limits)) is not None]
    for unit, label in _UNITS.items():
        having = [need for need in needs if need.amounts.get(unit, 0.0) > 0]
        needed = sum(need.amounts[unit] * need.count for need in having)
        most = sum(group.count * amount for group in limits.groups if group.count and (amount := group.amount(unit)))
        if needed > most * (1 + _EPSILON) + _EPSILON:
            names = ", ".join(need.name for need in having)
            reason = f"{names}: {_number(unit, needed)} {label} are needed and {limits.what} {_number(unit, most)}"
            return Shortage(reason, not alone, limits.mend)
    return Shortage(alone[0], False, limits.mend) if alone else None


def _alone(need: Need, limits: Limits) -> str | None:
    """Return why one kind of replica does not fit even if nothing else runs."""
    amounts = {unit: amount for unit, amount in need.amounts.items() if amount > 0}
    takes = _listed(amounts)
    fitting = sum(
        group.count * held for group in limits.groups if group.count and (held := _replicas_on(group, amounts))
    )
    if fitting >= need.count:
        return None
    if fitting:
        return f"{need.name}: {need.count} replicas of {takes} are needed and {limits.what} room for {fitting:g}"
    nodes = sorted({tuple(group.amount(unit) for unit in amounts) for group in limits.groups if group.count})
    shapes = [f"nodes of {_listed(dict(zip(amounts, node, strict=True)))}" for node in reversed(nodes) if any(node)]
    return (
        f"{need.name}: each takes {takes} of one node, and no node has that: {limits.what}"
        f" {'; '.join(shapes[:4]) or 'none'}"
    )


def _replicas_on(group: NodeGroup, amounts: Mapping[str, float]) -> float:
    return min((_times(unit, group.amount(unit), amount) for unit, amount in amounts.items()), default=math.inf)


def _times(unit: str, has: float, takes: float) -> float:
    """Return how often an amount fits a node; a share of a GPU cannot span two GPUs."""
    if math.isinf(has):
        return math.inf
    if unit == "GPU" and takes < 1:
        return math.floor(has + _EPSILON) * math.floor(1 / takes + _EPSILON)
    return math.floor(has / takes + _EPSILON)


def _listed(amounts: Mapping[str, float]) -> str:
    return " and ".join(f"{_number(unit, amount)} {_UNITS.get(unit, unit)}" for unit, amount in amounts.items())


def _number(unit: str, amount: float) -> str:
    if math.isinf(amount):
        return "any number of"
    return f"{amount / _GIB if unit == 'memory' else amount:.4g}"
