"""A replica of a model in a chain: one engine, in a process of its own, that answers blocks."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import ActorDiedError, RayError

from caslie_ray.engines import Choice, Failure, Generation, Request
from caslie_ray.engines.load_errors import LoadError, classify
from caslie_ray.engines.process import EngineDown, EngineProcess, ProcessLimits
from caslie_ray.errors import PoolDown, RunError
from caslie_ray.pipeline.adapter_download import release_adapters, with_local_adapters
from caslie_ray.pipeline.blocks import Failed, pack, pack_failure, unpack
from caslie_ray.pipeline.coalescing import Coalescer
from caslie_ray.pipeline.load_policy import Attempt
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.pool_state import Counts, Orders
from caslie_ray.pipeline.work import Work
from caslie_ray.roles import Role

__all__ = ["Replica", "failed_block"]

log = logging.getLogger(__name__)

_REPORT_S = 1.0
# Blocks that were dispatched before Ray Data saw that the node drains arrive within this time.
_LAST_BLOCK_S = 2.0


class Replica:
    """Plays every role of one checkpoint on the blocks that reach it.

    Loads the model when it is constructed, so that Ray Data dispatches blocks only to replicas that are ready. A row
    that kills the engine costs the engine's process, never this actor; see `caslie_ray.engines.process`.

    Args:
        work: what is done with a block.
        plan: the pool of which this is a replica.
        names: the roles that it plays.
        limits: of the engine's process.
        call_rows: upper limit of requests per engine call.
        monitor: handle of the chain's `Monitor`.
        chain: number of the chain; see `Monitor.begin`.

    Raises:
        LoadError: the model cannot be loaded on this node, but may be on another one. Ray Data starts a replacement.
    """

    def __init__(
        self,
        work: Work,
        plan: PoolPlan,
        names: Sequence[str],
        limits: ProcessLimits,
        call_rows: int,
        monitor: Any,
        chain: int | None = None,
    ) -> None:
        self._work, self._plan, self._names, self._limits, self._monitor = work, plan, tuple(names), limits, monitor
        context = ray.get_runtime_context()
        self._replica = str(context.get_actor_id())
        self._events: list[str] = []
        self._busy = 0
        self._idle_since = time.monotonic()
        self._leaving = False
        self._lock = threading.Lock()
        self._failing = threading.Lock()
        self._reporting = threading.Lock()
        self._closing = threading.Event()
        # The engine prepares the next call while it computes one.
        self._calls = Coalescer(min(call_rows, plan.call_rows), plan.slots + 1)
        self._engine: EngineProcess | None = None
        node = str(context.get_node_id())
        self._down: str | None = ray.get(monitor.started.remote(plan.key, self._replica, node, chain))
        threading.Thread(target=self._report_forever, name="report", daemon=True).start()
        if self._down is None:
            self._engine = self._load()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer one block; a failed one passes through."""
        block = unpack(batch)
        if isinstance(block, Failed):
            return batch
        with self._lock:
            self._busy += 1
            leaving = self._leaving
        if leaving:
            threading.Event().wait()  # this process ends now, and Ray repeats the call elsewhere
        try:
            answered = pack(self._work.answer(block, self._names, self))
        except Exception as error:
            answered = failed_block(error)
        finally:
            with self._lock:
                self._busy -= 1
                idle = not self._busy
                self._idle_since = time.monotonic()
        if idle:
            with suppress(RayError):
                self._report()  # Ray Data ends this actor without notice once the last block is through
        return answered

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        """Return one text per request, in order.

        Raises:
            PoolDown: the job needs this model, and it answers nothing any more.
        """
        answers = self._ask("generate", requests, lambda merged, engine: engine.generate(merged))
        if answers is None:
            return [Generation(request.key, "", 0, 0, False, self._failure()) for request in requests]
        return answers

    def choose(self, role: Role, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return one choice per request, in order.

        Raises:
            PoolDown: the job needs this model, and it answers nothing any more.
        """
        kind = "choose", tuple(choices)
        answers = self._ask(kind, requests, lambda merged, engine: engine.choose(merged, choices))
        if answers is None:
            return [Choice(request.key, (), 0, False, self._failure()) for request in requests]
        return answers

    def _ask(
        self, kind: object, requests: Sequence[Request], call: Callable[[list[Request], EngineProcess], list[Any]]
    ) -> list[Any] | None:
        """Return the answers of the engine; None if it is down and the job goes on without it."""
        engine = self._engine
        if self._down is None and engine is not None:
            try:
                answers = self._calls.ask(kind, requests, lambda merged: call(merged, engine))
                with suppress(RayError):
                    self._report()  # before they are written: what was paid for is counted, even if this node is lost
                return answers
            except EngineDown:
                self._fail(engine.down or "")
        if self._plan.needed:
            raise PoolDown(self._reason())
        return None

    def _fail(self, why: str) -> None:
        """Note that the engine is down: so is the pool, or this process ends, and Ray starts the replica again."""
        with self._failing:
            if self._down is not None:
                return
            self._report()
            if not ray.get(self._monitor.fail.remote(self._plan.key, self._replica, why)):
                os.kill(os.getpid(), signal.SIGKILL)
            self._down = why

    def _failure(self) -> Failure:
        return Failure(self._reason(), retryable=True)

    def _reason(self) -> str:
        return f"{self._plan.name} is down: {self._down}"

    def _load(self) -> EngineProcess | None:
        """Load the model, with the retries of the pool's `LoadPolicy`; None once the pool is down."""
        attempt = Attempt()
        while True:
            while pause := ray.get(self._monitor.pause_s.remote(self._plan.key)):
                time.sleep(pause)
            started = time.monotonic()
            try:
                engine = EngineProcess(
                    with_local_adapters(self._plan.spec), self._limits, name=self._plan.name,
                    overlap=self._plan.slots, on_event=self._note,
                )  # fmt: skip
            except Exception as error:
                log.exception("loading %s failed", self._plan.spec.checkpoint)
                failure = classify(error)
                following, elsewhere = ray.get(
                    self._monitor.load_failed.remote(self._plan.key, self._replica, attempt, failure)
                )
                if following is None:
                    self._wait_until_down()
                    return None
                if elsewhere:
                    ray.get(self._monitor.moved.remote(self._plan.key, self._replica))
                    raise LoadError(failure) from None
                attempt = following
            else:
                ray.get(self._monitor.loaded.remote(self._plan.key, self._replica, time.monotonic() - started))
                atexit.register(engine.close)  # Ray frees the GPU when this process has ended
                return engine

    def _wait_until_down(self) -> None:
        """Keep blocks away from a replica that was given up: until its pool is down, others answer them."""
        while self._down is None:
            time.sleep(_REPORT_S)
            self._down = self._report().down

    def _note(self, event: str) -> None:
        log.warning("%s: %s", self._plan.name, event)
        self._events.append(event)

    def _report(self) -> Orders:
        events, self._events = self._events, []
        engine = self._engine
        counts, details = (Counts(), {}) if engine is None else (_counts(engine), dict(engine.stats().details))
        orders: Orders = ray.get(
            self._monitor.report.remote(self._plan.key, self._replica, counts, details, events, self._busy)
        )
        return orders

    def close(self) -> None:
        """End the engine; nothing is reported after this."""
        self._closing.set()
        # A call of Ray after its shutdown ends this process at once, before the engine is closed.
        with self._reporting:
            self._release()

    def _report_forever(self) -> None:
        while not self._closing.wait(_REPORT_S):
            with self._reporting:
                if self._closing.is_set():
                    return
                try:
                    orders = self._report()
                except ActorDiedError:
                    orders = Orders(None, end=True)
                except RayError:
                    continue
            if orders.end:
                self._end()
                return
            if orders.leave:
                threading.Thread(target=self._leave, name="leave", daemon=True).start()

    def _end(self) -> None:
        """End this actor, whose chain has ended: some reference in the driver may keep it, and with it a GPU."""
        self._release()
        with suppress(RayError):
            ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    def _leave(self) -> None:
        """End this process once the blocks at hand are answered: Ray restarts the actor on another node."""
        while True:
            with self._lock:
                if not self._busy and time.monotonic() - self._idle_since > _LAST_BLOCK_S:
                    self._leaving = True
                    break
            time.sleep(0.1)
        with suppress(RayError):
            self._report()
        self._release()
        os.kill(os.getpid(), signal.SIGKILL)

    def _release(self) -> None:
        if self._engine is not None:
            self._engine.close()
        release_adapters()


def failed_block(error: Exception) -> pa.Table:
    """Return an error as a failed block: Ray Data would drop the block and its error, and the job must end with it.

    Raises:
        RayError: the cluster's doing: Ray Data retries, and the next pass does what is missing.
    """
    if isinstance(error, RayError):
        raise error
    plain = isinstance(error, (RunError, PoolDown))
    reason = str(error) if plain else f"{type(error).__name__}: {error}"
    return pack_failure(Failed(reason, isinstance(error, PoolDown)))


def _counts(engine: EngineProcess) -> Counts:
    work = engine.counters
    return Counts(
        work.calls, work.requests - work.failures, work.prompt_tokens, work.new_tokens, work.busy_s, work.choosing_s,
        work.deaths,
    )  # fmt: skip
