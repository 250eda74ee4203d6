"""The owner's handle on one engine process: load, calls, answers, cause of death."""

from __future__ import annotations

import itertools
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue

from caslie_ray.engines import EngineStats, Request
from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.engines.process._calls import Call, News
from caslie_ray.engines.process._counters import Meter
from caslie_ray.engines.process._deaths import Death, describe_exit, oom_kills
from caslie_ray.engines.process._frames import encode, receive, send
from caslie_ray.engines.process._launch import Launched
from caslie_ray.engines.process._limits import ProcessLimits
from caslie_ray.engines.process._messages import (
    Answered,
    Began,
    CallMessage,
    CancelMessage,
    CloseMessage,
    Loaded,
    LoadFailed,
    LoadMessage,
    Method,
    Piece,
    Raised,
    StatsAnswer,
    StatsMessage,
    pack,
)
from caslie_ray.engines.spec import EngineSpec

__all__ = ["ChildHandle", "LoadTimeoutError"]

log = logging.getLogger(__name__)

_EXIT_S = 5.0
_STATS_S = 10.0
_SLOW = "raise faults.start_timeout_s if the model is large or its download slow"


class ChildHandle:
    """One engine process, from its start to its end.

    Args:
        changed: guards the calls and the meter, and is notified when a call or the process ends.
        meter: counts what is computed.
        overlap: calls that the engine computes at once.
        on_death: called once when the process has ended.

    Raises:
        LaunchError: the process cannot be started.
    """

    def __init__(
        self,
        limits: ProcessLimits,
        overlap: int,
        environment: Mapping[str, str],
        changed: threading.Condition,
        meter: Meter,
        on_death: Callable[[Death], None],
    ) -> None:
        self.calls: dict[int, Call] = {}
        self.death: Death | None = None
        self._limits = limits
        self._overlap = overlap
        self._changed = changed
        self._meter = meter
        self._on_death = on_death
        self._numbers = itertools.count()
        self._sending = threading.Lock()
        self._verdict: Death | None = None  # why it is being ended, if it is
        self._load: SimpleQueue[Loaded | LoadFailed | Death] = SimpleQueue()
        self._stats: SimpleQueue[EngineStats] = SimpleQueue()
        self._oom_kills = oom_kills()
        self._log_since = time.monotonic()
        self._launched = Launched(environment)
        # Bounds the time that a sender blocks if the process no longer reads.
        wait = struct.pack("ll", int(limits.call_timeout_s) + 1, 0)
        self._launched.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
        threading.Thread(target=self._receive, name="engine-receiver", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._launched.pid

    def load(self, spec: EngineSpec) -> float:
        """Load the model; return the seconds that it took.

        Raises:
            LoadError: it cannot be loaded, the process ended, or it took too long.
        """
        started = time.monotonic()
        self._send(LoadMessage(spec, self._overlap))
        try:
            outcome = self._load.get(timeout=self._limits.start_timeout_s)
        except Empty:
            seconds = self._limits.start_timeout_s
            self.end(Death(f"it did not load the model in {seconds:g} s"))
            reason = f"checkpoint {spec.checkpoint} was not loaded in {seconds:g} s"
            raise LoadTimeoutError(LoadFailure("retry", reason, _SLOW)) from None
        if isinstance(outcome, LoadFailed):
            self.end(Death("it cannot load the model"))
            raise LoadError(outcome.failure)
        if isinstance(outcome, Death):
            reason = f"checkpoint {spec.checkpoint} cannot be loaded: its process ended ({outcome})"
            mend = "give the replica more main memory (resources.memory_gib)" if outcome.memory else ""
            raise LoadError(LoadFailure("retry", reason, mend))
        return time.monotonic() - started

    def accept(self, method: Method, rows: int) -> Call:
        """Make room for a call. The caller holds the lock, and then calls `deliver` without it."""
        call = Call(next(self._numbers), method, rows, self._limits.call_timeout_s, self._overlap)
        if self.calls:
            for other in (call, *self.calls.values()):
                other.shared = True
        else:
            self._log_since = time.monotonic()
        self.calls[call.number] = call
        return call

    def deliver(self, call: Call, requests: Sequence[Request], choices: tuple[str, ...]) -> None:
        """Send a call's requests to the process; where it has ended, the call learns that by its news."""
        self._send(CallMessage(call.number, call.method, pack(requests), choices))

    def leave(self, call: Call) -> None:
        """Mark an unanswered call as abandoned by its caller; its slot is free once the engine has finished it."""
        with self._changed:
            call.abandoned = call.number in self.calls
        if call.abandoned:
            self._send(CancelMessage(call.number))

    def stats(self) -> EngineStats | None:
        """Return the engine's own statistics; None if it does not answer."""
        self._send(StatsMessage())
        try:
            return self._stats.get(timeout=_STATS_S)
        except Empty:
            return None

    def close(self) -> None:
        """Let the engine close and exit; kill the process where that takes too long."""
        self._send(CloseMessage())
        self._launched.wait(self._limits.close_timeout_s)
        self.end(Death("it was closed"))

    def end(self, why: Death) -> None:
        """Kill the process and its descendants; return once they have ended and the calls have failed with `why`."""
        with self._changed:
            if self._verdict is None:
                self._verdict = why
        if not self._launched.kill():
            log.error("engine process %d does not end: its device may hang", self.pid)
        self._finish()

    def overdue(self) -> bool:
        """Return whether an abandoned call has passed its deadline. The caller holds the lock."""
        return any(call.abandoned and call.deadline < time.monotonic() for call in self.calls.values())

    def _send(self, message: object) -> None:
        parts = encode(message)
        try:
            with self._sending:
                send(self._launched.socket, parts)
        except BlockingIOError:
            self.end(Death(f"read nothing for {self._limits.call_timeout_s:g} s", timed_out=True))
        except OSError:
            pass  # it has ended; the receiver determines the cause

    def _receive(self) -> None:
        try:
            while True:
                self._handle(receive(self._launched.socket))
        except (EOFError, OSError):
            pass
        except Exception as error:  # e.g. a class of a user's engine that cannot be unpickled here
            log.exception("an answer of engine process %d cannot be read", self.pid)
            with self._changed:
                self._verdict = self._verdict or Death(f"its answer cannot be read: {type(error).__name__}: {error}")
        # A process that has closed its end exits, or hangs in its exit.
        if not self._launched.wait(_EXIT_S):
            self._launched.kill()
        self._finish()

    def _handle(self, message: object) -> None:
        match message:
            case Loaded() | LoadFailed():
                self._load.put(message)
            case StatsAnswer(stats):
                self._stats.put(stats)
            case Raised(_, error, memory):
                self.end(Death(error, memory=memory))
            case Began(number):
                with self._changed:
                    if (call := self.calls.get(number)) is not None:
                        call.began = time.monotonic()
                        self._meter.begin(call.method)
                        call.news.put(News(began=True))
            case Piece(number, text):
                with self._changed:
                    if (call := self.calls.get(number)) is not None:
                        call.news.put(News(piece=text))
            case Answered(number, answers):
                with self._changed:
                    if (call := self.calls.pop(number, None)) is not None:
                        if call.began is not None:
                            self._meter.end(call.method)
                        call.news.put(News(answers=answers))
                        self._changed.notify_all()

    def _finish(self) -> None:
        """Determine the cause of death and fail all calls with it, once."""
        log_lines = self._launched.log.last(self._log_since)
        with self._changed:
            if self.death is not None:
                return
            oom_killed = oom_kills() > self._oom_kills
            self.death = self._verdict or describe_exit(self._launched.exit_code, log_lines, oom_killed=oom_killed)
            self._launched.socket.close()
            self._on_death(self.death)  # before any caller sees it, and may start the next process
            for call in self.calls.values():
                if call.began is not None:
                    self._meter.end(call.method)
                call.news.put(News(death=self.death))
            self.calls.clear()
            self._load.put(self.death)
            self._changed.notify_all()


class LoadTimeoutError(LoadError):
    """The model was not loaded in time; another try would take as long."""
