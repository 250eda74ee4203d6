"""An engine in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from caslie_ray.engines import Choice, EngineStats, Failure, Generation, Request
from caslie_ray.engines.process._calls import Cancel
from caslie_ray.engines.process._counters import Counters
from caslie_ray.engines.process._deaths import Death
from caslie_ray.engines.process._errors import RequestFailed
from caslie_ray.engines.process._limits import ProcessLimits
from caslie_ray.engines.process._messages import Method
from caslie_ray.engines.process._retry import DiedError, RetryRule
from caslie_ray.engines.process._supervisor import Supervisor
from caslie_ray.engines.registry import overlap as registered_overlap
from caslie_ray.engines.spec import EngineSpec

__all__ = ["EngineProcess"]


class EngineProcess:
    """An `Engine` in a process of its own, for any engine that `load_engine` can load.

    - A row that crashes the process, hangs, or takes too much memory costs that process, and then itself: see
      `_retry` for the rule. The process is started again when the next call needs it.
    - Any number of threads may call; `overlap` calls are computed at once and one more waits in the process, so that
      its inputs are prepared in advance. Further calls wait in this process.
    - The process and all of its descendants end when this one does, however it ends.
    - When memory runs low, it is ended before its owner.

    Args:
        spec: the model and how to run it. Adapters are local folders.
        limits: time, memory and retries; the defaults if it is None.
        name: the model's name in reasons and events; the checkpoint if it is None.
        overlap: calls that the engine computes at once; as registered if it is None.
        environment: variables of the process that differ from this one's, such as OMP_NUM_THREADS.
        on_event: called with a line when a process is lost or does not load, from any thread.

    Raises:
        LoadError: the model cannot be loaded; `failure` says whether another try, or another node, may help.
    """

    def __init__(
        self,
        spec: EngineSpec,
        limits: ProcessLimits | None = None,
        *,
        name: str | None = None,
        overlap: int | None = None,
        environment: Mapping[str, str] | None = None,
        on_event: Callable[[str], None] | None = None,
    ) -> None:
        limits = limits or ProcessLimits()
        overlap = overlap or registered_overlap(spec.engine)
        self._name = name or spec.checkpoint
        self._process = Supervisor(spec, limits, self._name, overlap, environment or {}, on_event)
        self._rule = RetryRule(limits, self._name, self._process.take_down)
        try:
            self._process.start()
        except BaseException:
            self._process.close()
            raise

    @property
    def counters(self) -> Counters:
        """What was done since the first start, restarts included."""
        with self._process.changed:
            return self._process.meter.read()

    @property
    def down(self) -> str | None:
        """Why it answers nothing any more; None while it does."""
        return self._process.down

    @property
    def pid(self) -> int | None:
        """Process id of the engine; None if no process runs now."""
        return self._process.pid()

    def generate(self, requests: Sequence[Request], *, cancel: Cancel | None = None) -> list[Generation]:
        """Write an answer to each request; see `Engine.generate`.

        Raises:
            EngineDown: the engine cannot be kept alive.
            Cancelled: `cancel` was set.
            EngineError: it is closed.
        """
        return self._solve("generate", requests, (), _no_generation, cancel)

    def choose(
        self, requests: Sequence[Request], choices: Sequence[str], *, cancel: Cancel | None = None
    ) -> list[Choice]:
        """Give each choice's probability at the first token of the answer; see `Engine.choose`.

        Choices without first tokens of their own are failures, so that no such request ends the process.

        Raises:
            ValueError: fewer than two choices, or two that are alike.
            EngineDown: the engine cannot be kept alive.
            Cancelled: `cancel` was set.
            EngineError: it is closed.
        """
        if len({choice.strip().casefold() for choice in choices}) < max(2, len(choices)):
            raise ValueError(f"there must be at least two choices, all of them different: {list(choices)}")
        return self._solve("choose", requests, tuple(choices), _no_choice, cancel)

    def stream(self, request: Request, *, cancel: Cancel | None = None) -> Generator[str, None, Generation]:
        """Yield an answer in pieces as they are written, and return it; closing the iterator cancels the request.

        Where the process ends before the first piece, the request is tried again as by `generate`.

        Raises:
            RequestFailed: the request has no answer, or the process ended in the middle of it.
            EngineDown: the engine cannot be kept alive.
            Cancelled: `cancel` was set.
            EngineError: it is closed.
        """
        yielded = False
        try:
            answer: Generation
            pieces = self._pieces(request, cancel)
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    answer = end.value
                    break
                yielded = True
                yield piece
        except DiedError as died:
            if yielded:
                self._rule.died(died)
                reason = f"in the middle of its answer, it {died.death.outcome()} on {self._name}"
                raise RequestFailed(Failure(reason, retryable=True)) from None
        else:
            self._rule.succeeded(partial(self._ask, "generate", ()), [request])
            return answer
        (answer,) = self.generate([request], cancel=cancel)
        if answer.failure is not None:
            raise RequestFailed(answer.failure)
        yield answer.text
        return answer

    def stats(self) -> EngineStats:
        """Return what was done since the first start; `details` are those of the process that runs now."""
        counters, child = self.counters, self._process.child
        own = child.stats() if child is not None and child.death is None else None
        return EngineStats(
            calls=counters.requests,
            failures=counters.failures,
            prompt_tokens=counters.prompt_tokens,
            new_tokens=counters.new_tokens,
            seconds=counters.busy_s,
            load_seconds=counters.load_s,
            details=dict(own.details) if own is not None else {},
        )

    def close(self) -> None:
        """End the process; calls that wait for an answer raise `EngineError`. May be called twice."""
        self._process.close()

    def _solve(
        self,
        method: Method,
        requests: Sequence[Request],
        choices: tuple[str, ...],
        answer: Callable[[Request, Failure], Any],
        cancel: Cancel | None,
    ) -> list[Any]:
        def fail(request: Request, failure: Failure) -> Any:
            with self._process.changed:
                self._process.meter.add(failures=1)
            return answer(request, failure)

        if not requests:
            return []
        return self._rule.solve(requests, partial(self._ask, method, choices), fail, cancel=cancel)

    def _ask(
        self,
        method: Method,
        choices: tuple[str, ...],
        requests: Sequence[Request],
        *,
        alone: bool,
        cancel: Cancel | None = None,
    ) -> list[Any]:
        """Ask the process once; see `_retry.Ask`."""
        with self._process.sent(method, requests, choices, alone=alone, cancel=cancel) as (child, call):
            while (answers := self._process.next_news(child, call).answers) is None:
                pass
            if len(answers) != len(requests):
                wrong = Death(f"gave {len(answers)} answers to {len(requests)} requests")
                raise self._process.end(child, call, wrong)
        with self._process.changed:
            self._process.meter.answered(answers)
        return list(answers)

    def _pieces(self, request: Request, cancel: Cancel | None) -> Generator[str, None, Generation]:
        with self._process.sent("stream", [request], (), alone=False, cancel=cancel) as (child, call):
            while (news := self._process.next_news(child, call)).answers is None:
                if news.piece is not None:
                    yield news.piece
        with self._process.changed:
            self._process.meter.answered(news.answers)
        (answer,) = cast(list[Generation], news.answers)
        if answer.failure is not None:
            raise RequestFailed(answer.failure)
        return answer


def _no_generation(request: Request, failure: Failure) -> Generation:
    return Generation(request.key, "", 0, 0, False, failure)


def _no_choice(request: Request, failure: Failure) -> Choice:
    return Choice(request.key, (), 0, False, failure)
