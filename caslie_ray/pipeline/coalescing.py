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


class _Pending:
    """The requests of one caller, and their answers so far.

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
        if not self._missing:
            self.result.set_result(self._answers)

    def fail(self, error: BaseException) -> None:
        """End with an error, unless an earlier call has failed; not thread-safe."""
        if not self.result.done():
            self.result.set_exception(error)


class _Part(NamedTuple):
    pending: _Pending
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
        self._queue: deque[_Pending] = deque()
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
        mine = _Pending(kind, requests, call)
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
            requests = [request for part in parts for request in part.pending.requests[part.begin : part.end]]
            try:
                answers = parts[0].pending.call(requests)
            except BaseException as error:
                with self._changed:
                    for part in parts:
                        part.pending.fail(error)
                    self._queue = deque(pending for pending in self._queue if not pending.result.done())
                continue
            at = 0
            with self._changed:
                for part in parts:
                    size = part.end - part.begin
                    part.pending.answer(part.begin, answers[at : at + size])
                    at += size

    def _take(self) -> list[_Part]:
        """Remove the requests of the next call from the queue: the oldest, and others of their kind."""
        parts: list[_Part] = []
        waiting: deque[_Pending] = deque()
        room = self._most
        for pending in self._queue:
            if room and pending.kind == self._queue[0].kind:
                end = min(len(pending.requests), pending.sent + room)
                parts.append(_Part(pending, pending.sent, end))
                room -= end - pending.sent
                pending.sent = end
            if pending.sent < len(pending.requests):
                waiting.append(pending)
        self._queue = waiting
        return parts
