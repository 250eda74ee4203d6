"""Whether this worker's node is about to be drained, as spot machines are before they are taken away."""

from __future__ import annotations

import math
import time

import ray

from caslie_ray.cluster.ray_internals import draining_nodes

__all__ = ["DrainNotice"]

_POLL_S = 2.0


class DrainNotice:
    """Asks Ray at most every other second."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._asked = -math.inf
        self._answer = False

    def is_given(self) -> bool:
        """Return whether this node is about to be drained."""
        if time.monotonic() - self._asked > _POLL_S:
            self._asked = time.monotonic()
            self._answer = self._node in draining_nodes()
        return self._answer
