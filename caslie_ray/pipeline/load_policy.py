"""Retry policy for replicas whose model fails to load: number of tries, backoff, and nodes.

There is one `LoadPolicy` per pool. It only decides; the caller starts the next try.

- `final`: no retry.
- `retry`: retried on any node with exponential backoff. The pause applies to all replicas of the pool, which spares an
  overloaded hub.
- `elsewhere`: retried at once on another node; without another node, on the same one after the pause.
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
# Replicas of a pool that may fail on a node before the pool avoids it.
_REFUSALS = 2


@dataclass(frozen=True)
class Attempt:
    """One try at loading a replica.

    Attributes:
        number: counts from 1.
        avoid: ids of the nodes on which this replica failed because of the node.
        anywhere: allow any node, avoided ones included.
    """

    number: int = 1
    avoid: frozenset[str] = frozenset()
    anywhere: bool = False


class Decision(NamedTuple):
    """The decision after a failed try.

    Attributes:
        attempt: the next try; None: no retry.
        messages: log lines, without the pool's name.
    """

    attempt: Attempt | None
    messages: list[str]


@dataclass
class LoadPolicy:
    """Retry policy of one pool.

    Attributes:
        tries: tries per replica.
        pause_s: seconds before the second try; doubles with each further try, up to five minutes.
        grows: whether waiting for a new node makes sense; set to False once none came in time.
        refusals: failures because of the node, by node id.
        paused_until: end of the pool's pause, in seconds of the monotonic clock.
    """

    tries: int
    pause_s: float
    grows: bool = False
    refusals: dict[str, int] = field(default_factory=dict)
    paused_until: float = 0.0

    def after(self, attempt: Attempt, failure: LoadFailure, node: str | None, nodes: Mapping[str, str]) -> Decision:
        """Decide how to continue after a failed try.

        Args:
            attempt: the try that failed.
            failure: why it failed.
            node: id of the node on which it failed; None if unknown.
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
        """Return the nodes on which a try may not be placed; empty if no other node is large enough.

        Args:
            attempt: the try.
            nodes: ids of the nodes that are large enough for a replica.
        """
        if attempt.anywhere:
            return frozenset()
        avoid = attempt.avoid | {node for node, count in self.refusals.items() if count >= _REFUSALS}
        return avoid if self.grows or set(nodes) - avoid else frozenset()

    def nowhere_else(self, attempt: Attempt) -> Attempt:
        """Return the try for any node, after no other node had room in time; later tries do not wait for one."""
        self.grows = False
        return replace(attempt, anywhere=True)

    def delay_s(self) -> float:
        """Return the seconds until a replica may be loaded, with jitter; 0: at once."""
        rest = self.paused_until - time.monotonic()
        return rest + random.uniform(0.0, self.pause_s / 2) if rest > 0 else 0.0


def nodes_with_room(nodes: Iterable[Mapping[str, Any]], needs: Mapping[str, float]) -> dict[str, str]:
    """Return the addresses of the live nodes that are large enough for a replica, by node id.

    Args:
        nodes: as `ray.nodes()` returns them.
        needs: resources per replica, such as ``{"CPU": 1.0, "GPU": 0.5}``.
    """
    return {
        str(node["NodeID"]): str(node.get("NodeManagerAddress", "?"))
        for node in nodes
        if node["Alive"] and all(node.get("Resources", {}).get(unit, 0.0) >= need for unit, need in needs.items())
    }
