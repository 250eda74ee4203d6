"""Requests of concurrent calls, merged into larger engine calls.

After most views are decided, a late voter gets a few rows of each block. Blocks that wait at the same replica share an
engine call, so its batches are full although the blocks are not.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from caslie_ray.engines import Request

__all__ = ["Coalescer"]

_Call = Callable[[list[Request]], list[Any]]


class _Waiting(NamedTuple):
    kind: object
    requests: list[Request]
    call: _Call
    result: Future[list[Any]]


class Coalescer:
    """Merges waiting requests of one kind into engine calls of limited size. Thread-safe.

    Args:
        most: upper limit of requests per engine call, unless a single caller sends more.
        at_once: engine calls that may be in flight.
    """

    def __init__(self, most: int, at_once: int) -> None:
        self._most = most
        self._queue: deque[_Waiting] = deque()
        self._arrived = threading.Condition()
        for number in range(at_once):
            threading.Thread(target=self._serve, name=f"engine-call-{number}", daemon=True).start()

    def ask(self, kind: object, requests: Sequence[Request], call: _Call) -> list[Any]:
        """Return the answers to requests, in order.

        Args:
            kind: only requests of an equal kind share a call.
            requests: of one caller.
            call: asks the engine.

        Raises:
            Exception: what the engine call raised, for every caller that shared it.
        """
        mine = _Waiting(kind, list(requests), call, Future())
        with self._arrived:
            self._queue.append(mine)
            self._arrived.notify()
        return mine.result.result()

    def _serve(self) -> None:
        while True:
            with self._arrived:
                while not self._queue:
                    self._arrived.wait()
                group = self._take()
            try:
                answers = group[0].call([request for waiting in group for request in waiting.requests])
            except BaseException as error:
                for waiting in group:
                    waiting.result.set_exception(error)
                continue
            at = 0
            for waiting in group:
                waiting.result.set_result(answers[at : at + len(waiting.requests)])
                at += len(waiting.requests)

    def _take(self) -> list[_Waiting]:
        """Remove from the queue what shares the next call: the oldest, and others of its kind that fit."""
        group: list[_Waiting] = []
        rest: deque[_Waiting] = deque()
        rows = 0
        for waiting in self._queue:
            fits = not group or (waiting.kind == group[0].kind and rows + len(waiting.requests) <= self._most)
            if fits:
                group.append(waiting)
                rows += len(waiting.requests)
            else:
                rest.append(waiting)
        self._queue = rest
        return group
