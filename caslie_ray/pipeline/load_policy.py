"""Retry policy for replicas whose model fails to load: how often, after which pause, and on which nodes.

There is one `LoadPolicy` per pool. It receives each failure and decides what comes next; it starts nothing itself.

- `final`: no retry.
- `retry`: again on any node after a pause, which doubles with each try. The pause holds for the whole pool, so that
  many replicas do not ask a hub that is down one after the other.
- `elsewhere`: again at once on another node; where there is no other, on the same one after the pause.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from caslie_ray.engines.load_errors import LoadFailure

__all__ = ["Attempt", "Decision", "LoadPolicy", "nodes_with_room"]

_LONGEST_PAUSE_S = 300.0
# A node that failed this many replicas of a pool is avoided for good.
_REFUSALS = 2


@dataclass(frozen=True)
class Attempt:
    """One try at loading a replica.

    Attributes:
        number: counts from 1.
        avoid: ids of the nodes on which this replica failed through the node's fault.
        anywhere: place it on any node, even one that is avoided.
    """

    number: int = 1
    avoid: frozenset[str] = frozenset()
    anywhere: bool = False


class Decision(NamedTuple):
    """What comes after a failed try.

    Attributes:
        attempt: the next try, or None where there is none.
        messages: log lines, without the pool's name.
    """

    attempt: Attempt | None
    messages: list[str]


@dataclass
class LoadPolicy:
    """Decides about the failed loads of one pool.

    Attributes:
        tries: tries per replica.
        pause_s: seconds before the second try; the later pauses are each twice as long, up to five minutes.
        grows: whether nodes may be added to the cluster, so that waiting for another node makes sense. False once
            that was in vain.
        refusals: failures through a node's fault, by node id.
        paused_until: until when the pool loads nothing, in seconds of the monotonic clock.
    """

    tries: int
    pause_s: float
    grows: bool = False
    refusals: dict[str, int] = field(default_factory=dict)
    paused_until: float = 0.0

    def after(self, attempt: Attempt, failure: LoadFailure, node: str | None, nodes: Mapping[str, str]) -> Decision:
        """Decide what comes after a failed try.

        Args:
            attempt: the try that failed.
            failure: why.
            node: id of the node on which it failed; None where that is not known.
            nodes: addresses of the nodes that are large enough for a replica, by id.
        """
        where = f" on {nodes.get(node, node)}" if node is not None else ""
        what = f"a replica failed to load{where} (try {attempt.number} of {self.tries}): {failure}"
        if failure.kind == "final":
            return Decision(None, [f"a replica failed to load{where}: {failure}"])
        messages = []
        avoid = attempt.avoid
        if failure.kind == "elsewhere" and node is not None:
            avoid = avoid | {node}
            self.refusals[node] = self.refusals.get(node, 0) + 1
            if self.refusals[node] == _REFUSALS and self.avoided(Attempt(), nodes):
                messages.append(f"node {node} ({nodes.get(node, '?')}): {failure.reason}; replicas go elsewhere")
        if attempt.number >= self.tries:
            return Decision(None, [f"{what}; given up", *messages])
        following = Attempt(attempt.number + 1, avoid)
        if failure.kind == "elsewhere" and self.avoided(following, nodes):
            return Decision(following, [f"{what}; next try on another node", *messages])
        pause = min(_LONGEST_PAUSE_S, self.pause_s * 2 ** (attempt.number - 1)) * random.uniform(0.75, 1.25)
        self.paused_until = max(self.paused_until, time.monotonic() + pause)
        return Decision(following, [f"{what}; next try in {self.paused_until - time.monotonic():.0f} s"])

    def avoided(self, attempt: Attempt, nodes: Iterable[str]) -> frozenset[str]:
        """Return the nodes on which a try may not be placed; empty where no other node could take it.

        Args:
            attempt: the try.
            nodes: ids of the nodes that are large enough for a replica.
        """
        if attempt.anywhere:
            return frozenset()
        avoid = attempt.avoid | {node for node, count in self.refusals.items() if count >= _REFUSALS}
        return avoid if self.grows or set(nodes) - avoid else frozenset()

    def nowhere_else(self, attempt: Attempt) -> Attempt:
        """Return the try again, for any node, where no other node had room in time. The next one is not waited for."""
        self.grows = False
        return replace(attempt, anywhere=True)

    def delay_s(self) -> float:
        """Return the seconds until a replica may be loaded, with jitter; 0 for now."""
        rest = self.paused_until - time.monotonic()
        return rest + random.uniform(0.0, self.pause_s / 2) if rest > 0 else 0.0


def nodes_with_room(nodes: Iterable[Mapping[str, Any]], needs: Mapping[str, float]) -> dict[str, str]:
    """Return the addresses of the live nodes that could hold a replica if they were empty, by id.

    Args:
        nodes: as `ray.nodes()` returns them.
        needs: what a replica needs, such as ``{"CPU": 1.0, "GPU": 0.5}``.
    """
    return {
        str(node["NodeID"]): str(node.get("NodeManagerAddress", "?"))
        for node in nodes
        if node["Alive"] and all(node.get("Resources", {}).get(unit, 0.0) >= need for unit, need in needs.items())
    }
