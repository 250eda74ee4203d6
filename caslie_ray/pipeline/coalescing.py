"""Requests of concurrent callers, cut and merged into engine calls of one size.

A block may have more requests than one engine call should take. And after most views are decided, a late voter gets a
few rows of each block: blocks that wait at the same replica share a call, so that its batches are full.
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


class _Asked:
    """What one caller asks.

    Args:
        kind: only requests of an equal kind share a call.
        requests: in order.
        call: asks the engine.
    """

    def __init__(self, kind: object, requests: Sequence[Request], call: _Call) -> None:
        self.kind = kind
        self.requests = requests
        self.call = call
        self.sent = 0
        self.result: Future[list[Any]] = Future()
        self._answers: list[Any] = [None] * len(requests)
        self._missing = len(requests)

    def answer(self, begin: int, answers: Sequence[Any]) -> None:
        """Take the answers from position `begin` on; not thread-safe."""
        self._answers[begin : begin + len(answers)] = answers
        self._missing -= len(answers)
        if not self._missing and not self.result.done():
            self.result.set_result(self._answers)

    def fail(self, error: BaseException) -> None:
        """End with an error, unless an earlier call has failed; not thread-safe."""
        if not self.result.done():
            self.result.set_exception(error)


class _Part(NamedTuple):
    asked: _Asked
    begin: int
    end: int


class Coalescer:
    """Merges waiting requests of one kind into engine calls, and cuts long ones. Thread-safe.

    Args:
        most: upper limit of requests per engine call.
        at_once: engine calls that may be in flight.
    """

    def __init__(self, most: int, at_once: int) -> None:
        self._most = most
        self._queue: deque[_Asked] = deque()
        self._changed = threading.Condition()
        for number in range(at_once):
            threading.Thread(target=self._serve, name=f"engine-call-{number}", daemon=True).start()

    def ask(self, kind: object, requests: Sequence[Request], call: _Call) -> list[Any]:
        """Return the answers to requests, in order.

        Args:
            kind: only requests of an equal kind share a call.
            requests: of one caller.
            call: asks the engine.

        Raises:
            Exception: what an engine call raised, for every caller with requests in it.
        """
        if not requests:
            return []
        mine = _Asked(kind, requests, call)
        with self._changed:
            self._queue.append(mine)
            self._changed.notify(-(-len(requests) // self._most))
        return mine.result.result()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                parts = self._take()
            requests = [request for part in parts for request in part.asked.requests[part.begin : part.end]]
            try:
                answers = parts[0].asked.call(requests)
            except BaseException as error:
                with self._changed:
                    for part in parts:
                        part.asked.fail(error)
                    self._queue = deque(asked for asked in self._queue if not asked.result.done())
                continue
            at = 0
            with self._changed:
                for part in parts:
                    size = part.end - part.begin
                    part.asked.answer(part.begin, answers[at : at + size])
                    at += size

    def _take(self) -> list[_Part]:
        """Remove the requests of the next call from the queue: the oldest, and others of their kind."""
        parts: list[_Part] = []
        waiting: deque[_Asked] = deque()
        room = self._most
        for asked in self._queue:
            if room and asked.kind == self._queue[0].kind:
                end = min(len(asked.requests), asked.sent + room)
                parts.append(_Part(asked, asked.sent, end))
                room -= end - asked.sent
                asked.sent = end
            if asked.sent < len(asked.requests):
                waiting.append(asked)
        self._queue = waiting
        return parts
