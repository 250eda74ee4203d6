"""Supervision of one engine process: start, restart, and admission of calls, concurrent or exclusive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from caslie_ray.engines import Request
from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.engines.process._calls import Call, Cancel, News
from caslie_ray.engines.process._child_handle import ChildHandle, LoadTimeoutError
from caslie_ray.engines.process._counters import Meter
from caslie_ray.engines.process._deaths import Death, by_timeout
from caslie_ray.engines.process._errors import Cancelled, EngineDown
from caslie_ray.engines.process._launch import LaunchError
from caslie_ray.engines.process._limits import ProcessLimits
from caslie_ray.engines.process._memory_watch import MemoryWatch
from caslie_ray.engines.process._messages import Method
from caslie_ray.engines.process._retry import DiedError
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError

__all__ = ["Supervisor"]

log = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 300.0


class Supervisor:
    """Starts the process, again after each death when the next call comes, and admits calls to it.

    Args:
        spec: the model and how to run it.
        limits: time, memory and retries.
        name: the model's name in errors and events.
        overlap: calls that the engine computes at once; one more waits in the process.
        environment: variables of the process that differ from this one's.
        on_event: called with a line when a process is lost or does not load, from any thread.

    Attributes:
        changed: guards all that changes, and is notified of it.
        meter: counts what was done.
        child: the process that runs or was the last to run; None before the first.
        down: why no process is started any more; None while one is.
    """

    def __init__(
        self,
        spec: EngineSpec,
        limits: ProcessLimits,
        name: str,
        overlap: int,
        environment: Mapping[str, str],
        on_event: Callable[[str], None] | None,
    ) -> None:
        self.changed = threading.Condition()
        self.meter = Meter()
        self.child: ChildHandle | None = None
        self.down: str | None = None
        self._spec = spec
        self._limits = limits
        self._name = name
        self._overlap = overlap
        self._environment = environment
        self._on_event = on_event
        self._starting = False
        self._exclusive: object | None = None  # owner of exclusive access, granted or pending
        self._closed = False
        self._watch = MemoryWatch(limits, self.pid, self._end_for_memory, self._end_overdue)

    def pid(self) -> int | None:
        """Return the process id; None if no process runs."""
        child = self.child
        return child.pid if child is not None and child.death is None else None

    def start(self) -> None:
        """Start the first process and load the model.

        Raises:
            LoadError: the model cannot be loaded.
        """
        with self.changed:
            self._starting = True
        self._start(first=True)

    @contextmanager
    def sent(
        self,
        method: Method,
        requests: Sequence[Request],
        choices: tuple[str, ...],
        *,
        alone: bool,
        cancel: Cancel | None,
    ) -> Iterator[tuple[ChildHandle, Call]]:
        """Send a call once a slot is free; leaving before its answer cancels it in the process.

        Args:
            method: of the engine.
            requests: the batch.
            choices: for `choose`.
            alone: whether no other call may be in the process at the same time.
            cancel: ends the wait, here and in `next_news`.

        Raises:
            EngineDown: no process can be started.
            Cancelled: the caller cancelled it.
            EngineError: the engine is closed.
        """
        cancel = cancel or Cancel()
        me = object()
        try:
            with cancel.calling(self._wake):
                child, call = self._enter(me, method, requests, alone, cancel)
            with cancel.calling(call.cancel):
                try:
                    child.deliver(call, requests, choices)
                    yield child, call
                finally:
                    child.leave(call)
        finally:
            with self.changed:
                if self._exclusive is me:
                    self._exclusive = None
                    self.changed.notify_all()

    def next_news(self, child: ChildHandle, call: Call) -> News:
        """Return the next news of a call.

        Raises:
            DiedError: its process ended, or took too long and was ended.
            Cancelled: the caller cancelled it.
            EngineError: the engine was closed.
        """
        try:
            news = call.wait()
        except TimeoutError:
            raise self.end(child, call, by_timeout(self._limits.call_timeout_s)) from None
        if news.cancelled:
            raise Cancelled(f"a call of {self._name} was cancelled")
        if news.death is not None:
            if self._closed:
                raise EngineError(f"the engine of checkpoint {self._spec.checkpoint} is closed")
            raise DiedError(news.death, began=call.began is not None, shared=call.shared)
        return news

    def end(self, child: ChildHandle, call: Call, why: Death) -> DiedError:
        """End a process because of one call; return what to raise."""
        child.end(why)
        return DiedError(child.death or why, began=True, shared=call.shared)

    def take_down(self, reason: str) -> None:
        """Start no further process; all calls raise `EngineDown`."""
        with self.changed:
            self.down = self.down or reason
            self.changed.notify_all()
        self._event(f"down: {reason}")

    def close(self) -> None:
        """End the process; let the engine close first where it computes nothing. May be called twice."""
        with self.changed:
            again, self._closed = self._closed, True
            child = self.child
            gentle = not (again or self._starting or child is None or child.death is not None or child.calls)
            self.changed.notify_all()
        self._watch.stop()
        if child is not None:
            if gentle:
                child.close()
            child.end(Death("closed"))

    def _enter(
        self, me: object, method: Method, requests: Sequence[Request], alone: bool, cancel: Cancel
    ) -> tuple[ChildHandle, Call]:
        """Wait for a free slot, or for exclusive access; start a process if there is none."""
        while True:
            with self.changed:
                while True:
                    self._refuse(cancel)
                    if alone and self._exclusive is None:
                        self._exclusive = me
                    child = self.child
                    if not self._starting:
                        if child is None or child.death is not None:
                            self._starting = True
                            break
                        room = 1 if alone else self._overlap + 1
                        if self._exclusive is (me if alone else None) and len(child.calls) < room:
                            return child, child.accept(method, len(requests))
                    self.changed.wait()
            self._start(first=False)

    def _refuse(self, cancel: Cancel | None = None) -> None:
        if self._closed:
            raise EngineError(f"the engine of checkpoint {self._spec.checkpoint} is closed")
        if self.down is not None:
            raise EngineDown(f"{self._name} is down: {self.down}")
        if cancel is not None and cancel.is_set():
            raise Cancelled(f"a call of {self._name} was cancelled")

    def _start(self, *, first: bool) -> None:
        """Start a process and load the model; the caller has set `_starting`."""
        try:
            self._load()
        except LoadError as error:
            if first:
                raise
            self._refuse()
            self.take_down(str(error))
            raise EngineDown(f"{self._name} is down: {error}") from error
        finally:
            with self.changed:
                self._starting = False
                self.changed.notify_all()

    def _load(self) -> None:
        for number in range(1, self._limits.load_tries + 1):
            try:
                seconds = self._launch().load(self._spec)
            except LaunchError as error:
                failure = LoadFailure("elsewhere", str(error), "free memory on this node")
                self._pause(number, LoadError(failure))
            except LoadError as error:
                self._pause(number, error)
            else:
                with self.changed:
                    self.meter.add(starts=1, load_s=seconds)
                return

    def _launch(self) -> ChildHandle:
        self._refuse()
        child = ChildHandle(self._limits, self._overlap, self._environment, self.changed, self.meter, self._lost)
        with self.changed:
            self.child = child
            closed = self._closed
        if closed:
            child.end(Death("closed"))
        return child

    def _pause(self, number: int, error: LoadError) -> None:
        """Wait before the next try to load; raise the error where another try makes no sense."""
        tries = self._limits.load_tries
        final = error.failure.kind != "retry" or isinstance(error, LoadTimeoutError)
        if self._closed:
            raise error
        if final or number >= tries:
            self._event(f"the model was not loaded: {error}")
            raise error
        pause = min(_LONGEST_PAUSE_S, self._limits.load_pause_s * 2 ** (number - 1))
        self._event(f"the model was not loaded (try {number} of {tries}): {error}; next try in {pause:.0f} s")
        with self.changed:
            self.changed.wait_for(lambda: self._closed, pause)

    def _lost(self, death: Death) -> None:
        """Note the end of a process; one that did not load is reported by `_pause`."""
        with self.changed:
            if self._closed:
                return
            self.meter.add(deaths=1)
            loading = self._starting
        if not loading:
            self._event(f"an engine process was lost: {death.report()}")

    def _end_for_memory(self, pid: int, why: Death) -> None:
        child = self.child
        if child is not None and child.pid == pid:
            child.end(why)

    def _end_overdue(self) -> None:
        """End the process if an abandoned call has passed its deadline."""
        with self.changed:
            child = self.child
            overdue = child is not None and child.overdue()
        if child is not None and overdue:
            child.end(by_timeout(self._limits.call_timeout_s))

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _event(self, line: str) -> None:
        log.warning("%s: %s", self._name, line)
        if self._on_event is not None:
            self._on_event(line)
