"""The poison rule: retries of rows whose batch ended the engine process.

- A batch during which the process ends is split by 8, down to single rows; each part is retried alone.
- Only a row that was alone in the process counts a try; after `ProcessLimits.tries` it gets a `Failure`.
- Other calls in flight at that time are retried alone too, so that no row fails because of another.
- After `ProcessLimits.failures_in_a_row` deaths, or failed rows, without an answer in between, the engine must answer a
  call that it answered before. If it does not, the engine is at fault and not the rows: it is down.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from caslie_ray.engines import Failure, Request
from caslie_ray.engines.process._calls import Cancel
from caslie_ray.engines.process._deaths import Death
from caslie_ray.engines.process._errors import EngineDown
from caslie_ray.engines.process._limits import ProcessLimits

__all__ = ["Ask", "DiedError", "RetryRule"]

_SHRINK = 8


class DiedError(Exception):
    """The engine process ended before it answered a call.

    Attributes:
        death: why it ended.
        began: whether the engine had started to compute the call; if not, it cannot be at fault.
        shared: whether another call was in the process at the same time.
    """

    def __init__(self, death: Death, *, began: bool, shared: bool) -> None:
        super().__init__(str(death))
        self.death = death
        self.began = began
        self.shared = shared


class Ask(Protocol):
    """Asks the engine process once, starting it where there is none."""

    def __call__(self, requests: Sequence[Request], *, alone: bool, cancel: Cancel | None = None) -> list[Any]:
        """Return one answer per request.

        Args:
            requests: the batch.
            alone: whether no other call may be in the process at the same time.
            cancel: ends the wait.

        Raises:
            DiedError: the process ended before it answered.
            Cancelled: the caller cancelled it.
            EngineDown: the process cannot be started any more.
        """
        ...


class RetryRule:
    """Applies the poison rule to the calls of one engine. Thread-safe.

    Args:
        name: the model, for reasons.
        take_down: called with the reason when the engine is down, before `EngineDown` is raised.
    """

    def __init__(self, limits: ProcessLimits, name: str, take_down: Callable[[str], None]) -> None:
        self._limits = limits
        self._name = name
        self._take_down = take_down
        self._lock = threading.Lock()
        self._deaths = 0  # in a row, without an answer in between; rows that were alone are not counted
        self._poisoned = 0  # rows in a row that ended their process
        self._counted: Death | None = None
        self._proof: tuple[Ask, Request] | None = None

    def solve(
        self,
        requests: Sequence[Request],
        ask: Ask,
        fail: Callable[[Request, Failure], Any],
        *,
        alone: bool = False,
        cancel: Cancel | None = None,
    ) -> list[Any]:
        """Return one answer per request, in order.

        Args:
            requests: the batch.
            ask: asks the engine.
            fail: makes an answer from a failure.
            alone: whether no other call may be in the process at the same time.
            cancel: ends the wait.

        Raises:
            EngineDown: the engine is at fault, and not the rows.
            Cancelled: the caller cancelled it.
        """
        tries = 0
        while True:
            try:
                answers = ask(requests, alone=alone, cancel=cancel)
            except DiedError as died:
                blamed = died.began or alone
                single = len(requests) == 1 and not died.shared
                self._count(died.death, counts=not (blamed and single))
                if blamed and len(requests) > 1:
                    return self._split(requests, ask, fail, cancel)
                tries += blamed and not died.shared
                alone = True
                if tries >= self._limits.tries:
                    return [fail(requests[0], self._poison(died.death, tries))]
            else:
                self.succeeded(ask, requests)
                return answers

    def succeeded(self, ask: Ask, requests: Sequence[Request]) -> None:
        """Note that the engine has answered."""
        with self._lock:
            self._deaths = self._poisoned = 0
            if self._proof is None and requests:
                self._proof = ask, requests[0]

    def died(self, died: DiedError) -> None:
        """Note that the process ended in a call that is not tried again.

        Raises:
            EngineDown: the engine is at fault.
        """
        self._count(died.death, counts=True)

    def _split(
        self, requests: Sequence[Request], ask: Ask, fail: Callable[[Request, Failure], Any], cancel: Cancel | None
    ) -> list[Any]:
        size = max(1, len(requests) // _SHRINK)
        answers: list[Any] = []
        for at in range(0, len(requests), size):
            answers += self.solve(requests[at : at + size], ask, fail, alone=True, cancel=cancel)
        return answers

    def _count(self, death: Death, *, counts: bool) -> None:
        """Count a death once, though several calls report it; check the engine after too many."""
        with self._lock:
            if death is self._counted:
                return
            self._counted = death
            self._deaths += counts
            if self._deaths < self._limits.failures_in_a_row:
                return
            deaths = self._deaths
        if self._answers():
            with self._lock:
                self._deaths = 0
            return
        self._give_up(f"its process ended {deaths} times in a row, the last time: {death}")

    def _poison(self, death: Death, tries: int) -> Failure:
        with self._lock:
            self._poisoned += 1
            poisoned = self._poisoned
        if poisoned >= self._limits.failures_in_a_row:
            if not self._answers():
                self._give_up(f"each of the last {poisoned} rows that it was given alone {death.outcome()}")
            with self._lock:
                self._poisoned = poisoned = 1
        often = "once" if tries == 1 else f"{tries} times"
        reason = f"alone in its batch, it {death.outcome()} {often} on {self._name}"
        # Time and memory may suffice later; a second row without an answer in between may be the engine's fault.
        retryable = death.timed_out or death.memory or poisoned > 1
        return Failure(reason if retryable else f"poison: {reason}", retryable)

    def _answers(self) -> bool:
        """Return whether the engine still answers what it answered before: then rows are at fault."""
        with self._lock:
            proof = self._proof
        if proof is None:
            return False
        ask, request = proof
        try:
            ask([request], alone=True)
        except DiedError as died:
            with self._lock:
                self._counted = died.death
            return False
        return True

    def _give_up(self, reason: str) -> None:
        self._take_down(reason)
        raise EngineDown(f"{self._name} is down: {reason}")
