"""A replica as a plain object, with a fake engine: no Ray, no process."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pyarrow as pa
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from caslie_ray.engines import Choice, EngineSpec, EngineStats, Generation, Request
from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.engines.process import Counters, EngineDown, ProcessLimits
from caslie_ray.errors import RunError
from caslie_ray.pipeline import replica as replica_module
from caslie_ray.pipeline.blocks import Failed, pack, pack_failure, unpack
from caslie_ray.pipeline.monitor import Monitor
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.replica import Replica
from caslie_ray.pipeline.stage import ModelStage
from caslie_ray.profiles.faults import FaultSettings
from caslie_ray.prompts import Prompt
from tests.clusters import until

NODE = {"NodeID": "a", "Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": {"CPU": 4.0, "memory": 1e12}}


class FakeEngine:
    """Stands for `EngineProcess`."""

    failures: ClassVar[list[Exception]] = []
    down: str | None = None
    closed = False

    def __init__(
        self, spec: EngineSpec, limits: Any, *, name: str, overlap: int, on_event: Callable[[str], None]
    ) -> None:
        self.on_event = on_event
        self.calls: list[int] = []
        self.hold: threading.Event | None = None
        if FakeEngine.failures:
            raise FakeEngine.failures.pop(0)

    @property
    def counters(self) -> Counters:
        return Counters(calls=len(self.calls), requests=sum(self.calls), busy_s=float(len(self.calls)))

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        self._compute(requests)
        return [Generation(request.key, request.prompt.text, 1, 1, False) for request in requests]

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        self._compute(requests)
        return [Choice(request.key, (0.6, 0.4), 1, False) for request in requests]

    def stats(self) -> EngineStats:
        return EngineStats(details={"padding": 1.0})

    def close(self) -> None:
        self.closed = True

    def _compute(self, requests: Sequence[Request]) -> None:
        if self.hold is not None:
            assert self.hold.wait(20)
        if self.down is not None:
            raise EngineDown(f"phi is down: {self.down}")
        self.calls.append(len(requests))


class Work:
    """Requests a vote for each row of a block; raises `error` if it is set."""

    error: Exception | None = None

    def answer(self, block: pa.Table, names: Sequence[str], ask: Any) -> pa.Table:
        if self.error is not None:
            raise self.error
        requests = [Request(key, Prompt(key)) for key in block["key"].to_pylist()]
        answers = ask.choose(names[0], requests, ("yes", "no"))
        reasons = [answer.failure.reason if answer.failure else None for answer in answers]
        return block.append_column("reason", pa.array(reasons, pa.string()))


class Handle:
    """Stands for the monitor's actor handle."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.unavailable = self.gone = False

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Callable[[], Any]:
            def call() -> Any:
                if self.gone:
                    raise ActorDiedError()
                if self.unavailable:
                    raise ActorUnavailableError("the connection was lost", None)
                return getattr(self.monitor, name)(*arguments)

            return call

        return SimpleNamespace(remote=remote)


class Killed(BaseException):
    """Ends the thread in the place of the process."""


class Rig:
    """Makes replicas of one pool with a monitor."""

    def __init__(self, needed: bool = True) -> None:
        self.plan = PoolPlan("phi", "phi", EngineSpec("org/phi"), 1.0, 0.0, 0.0, 1, 2, needed)
        self.monitor = Monitor([self.plan], FaultSettings(load_tries=2, load_pause_s=0.01))
        self.handle = Handle(self.monitor)
        self.work = Work()
        self.killed: list[int] = []
        self.draining: dict[str, float] = {}

    def replica(self) -> Replica:
        return Replica(cast(Any, self.work), self.plan, ("phi",), ProcessLimits(), 8, self.handle)

    def kill(self, pid: int, number: int) -> None:
        self.killed.append(number)
        raise Killed

    @property
    def stats(self) -> Any:
        return self.monitor.stats()["phi"]


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    one = Rig()
    context = SimpleNamespace(get_actor_id=lambda: "replica", get_node_id=lambda: "a")
    ray = SimpleNamespace(get=lambda call, **_: call(), get_runtime_context=lambda: context, nodes=lambda: [NODE])
    monkeypatch.setattr(replica_module, "ray", ray)
    monkeypatch.setattr("caslie_ray.pipeline.monitor.ray", ray)
    monkeypatch.setattr("caslie_ray.pipeline.monitor.draining_nodes", lambda: one.draining)
    monkeypatch.setattr("caslie_ray.pipeline.monitor._DRAINS_EVERY_S", 0.0)
    monkeypatch.setattr(replica_module, "EngineProcess", FakeEngine)
    monkeypatch.setattr(replica_module, "_REPORT_S", 0.02)
    monkeypatch.setattr(replica_module, "_LAST_BLOCK_S", 0.1)
    monkeypatch.setattr(replica_module, "os", SimpleNamespace(kill=one.kill, getpid=lambda: 17))
    monkeypatch.setattr(FakeEngine, "failures", [])
    # `Killed` ends threads on purpose.
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    yield one
    one.handle.gone = True
    until(lambda: not any(thread.name == "report" for thread in threading.enumerate()), 10, "replicas to end")


def block(*keys: str) -> pa.Table:
    return pack(pa.table({"key": list(keys)}))


def engine_of(replica: Replica) -> FakeEngine:
    return cast(FakeEngine, replica._engine)


def reasons(answered: pa.Table) -> list[str | None]:
    opened = unpack(answered)
    assert isinstance(opened, pa.Table), opened
    found: list[str | None] = opened["reason"].to_pylist()
    return found


def test_a_block_is_answered_and_counted_before_it_is_passed_on(rig: Rig) -> None:
    replica = rig.replica()
    assert reasons(replica(block("a", "b"))) == [None, None]
    assert (rig.stats.ready, rig.stats.calls, rig.stats.requests) == (1, 1, 2)
    assert rig.stats.details == {"padding": 1.0}


def test_a_block_continues_although_its_counters_cannot_be_reported(rig: Rig) -> None:
    replica = rig.replica()
    rig.handle.unavailable = True
    assert reasons(replica(block("a"))) == [None]
    rig.handle.unavailable = False
    until(lambda: rig.stats.requests == 1, 5, "the next report")


def test_a_failed_block_passes_through(rig: Rig) -> None:
    failed = pack_failure(Failed("s3://run refuses", down=False))
    assert rig.replica()(failed) is failed


@pytest.mark.parametrize(("error", "reason"), [(RunError("disk full"), "disk full"), (KeyError("x"), "KeyError: 'x'")])
def test_an_error_of_the_store_or_the_code_is_a_failed_block(rig: Rig, error: Exception, reason: str) -> None:
    rig.work.error = error
    assert unpack(rig.replica()(block("a"))) == Failed(reason, down=False)


def test_an_error_of_the_cluster_is_left_to_ray(rig: Rig) -> None:
    rig.work.error = ActorUnavailableError("the connection was lost", None)
    with pytest.raises(ActorUnavailableError):
        rig.replica()(block("a"))


def test_blocks_that_wait_share_an_engine_call(rig: Rig) -> None:
    replica = rig.replica()
    engine = engine_of(replica)
    engine.hold = threading.Event()
    with ThreadPoolExecutor(8) as threads:
        blocks = [threads.submit(replica, block(key)) for key in "abcdef"]
        until(lambda: replica._busy == 6, 5, "blocks to wait")
        time.sleep(0.2)
        engine.hold.set()
        assert [reasons(one.result(timeout=10)) for one in blocks] == [[None]] * 6
    assert sum(engine.calls) == 6
    assert len(engine.calls) <= 3, "two were in flight, and the others shared one"


def test_events_of_the_engine_reach_the_driver(rig: Rig) -> None:
    replica = rig.replica()
    engine_of(replica).on_event("an engine process was lost: exit code 7")
    replica(block("a"))
    assert rig.monitor.quick_status()[0] == ["phi: an engine process was lost: exit code 7"]


# Loading.


def test_a_load_is_tried_again_by_the_pool_s_policy(rig: Rig) -> None:
    FakeEngine.failures = [LoadError(LoadFailure("retry", "503", "later"))]
    assert reasons(rig.replica()(block("a"))) == [None]
    assert rig.stats.deaths == 1


@pytest.mark.parametrize("needed", [True, False])
def test_a_replica_that_cannot_be_loaded_answers_for_its_pool(rig: Rig, needed: bool) -> None:
    rig.plan = PoolPlan("phi", "phi", EngineSpec("org/phi"), 1.0, 0.0, 0.0, 1, 2, needed)
    rig.handle.monitor = rig.monitor = Monitor([rig.plan], FaultSettings())
    FakeEngine.failures = [LoadError(LoadFailure("final", "no such checkpoint", ""))]
    answered = rig.replica()(block("a"))
    if needed:
        assert unpack(answered) == Failed("phi is down: no such checkpoint", down=True)
    else:
        assert reasons(answered) == ["phi is down: no such checkpoint"]


def test_a_replica_that_was_given_up_keeps_blocks_away_while_others_answer(rig: Rig) -> None:
    rig.monitor.started("phi", "other", "a")
    rig.monitor.loaded("phi", "other", 1.0)
    FakeEngine.failures = [LoadError(LoadFailure("final", "no such checkpoint", ""))]
    made: list[Replica] = []
    thread = threading.Thread(target=lambda: made.append(rig.replica()), daemon=True)
    thread.start()
    thread.join(0.5)
    assert made == []
    rig.monitor._pools["phi"].replicas.pop("other")
    rig.monitor._give_up(rig.monitor._pools["phi"])
    thread.join(10)
    assert len(made) == 1


# Engines that fail on whatever they are asked.


@pytest.mark.parametrize("needed", [True, False])
def test_an_engine_that_never_answered_is_a_pool_that_is_down(rig: Rig, needed: bool) -> None:
    rig.plan = PoolPlan("phi", "phi", EngineSpec("org/phi"), 1.0, 0.0, 0.0, 1, 2, needed)
    rig.handle.monitor = rig.monitor = Monitor([rig.plan], FaultSettings())
    replica = rig.replica()
    engine_of(replica).down = "CUDA error"
    answered = replica(block("a"))
    if needed:
        assert unpack(answered) == Failed("phi is down: CUDA error", down=True)
    else:
        assert reasons(answered) == ["phi is down: CUDA error"]
    assert rig.monitor.quick_status()[1][0].error == "phi is down: CUDA error"
    assert rig.killed == []


def test_an_engine_that_answered_before_ends_its_replica_which_ray_starts_again(rig: Rig) -> None:
    replica = rig.replica()
    replica(block("a"))
    engine_of(replica).down = "CUDA error"
    with pytest.raises(Killed):
        replica(block("b"))
    assert rig.killed == [signal.SIGKILL]
    assert rig.monitor.quick_status()[1][0].error is None


# Nodes that are about to go.


def test_a_replica_leaves_a_draining_node_once_its_blocks_are_answered(rig: Rig) -> None:
    replica = rig.replica()
    engine = engine_of(replica)
    engine.hold = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        last = threads.submit(replica, block("a"))
        until(lambda: replica._busy, 5, "the block to begin")
        rig.draining["a"] = 0.0
        until(lambda: rig.monitor._messages, 5, "the order to leave")
        assert rig.killed == []
        engine.hold.set()
        assert reasons(last.result(timeout=10)) == [None]
    until(lambda: rig.killed, 5, "its end")
    assert rig.killed == [signal.SIGKILL]
    assert engine.closed
    assert rig.stats.requests == 1


def test_a_replica_that_leaves_takes_no_block_any_more(rig: Rig) -> None:
    """The block would fail with the engine, which is closed; Ray repeats it elsewhere when the process ends."""
    replica = rig.replica()
    rig.draining["a"] = 0.0
    until(lambda: rig.killed, 5, "its end")
    late = threading.Thread(target=replica, args=(block("late"),), daemon=True)
    late.start()
    late.join(0.3)
    assert late.is_alive()
    assert engine_of(replica).calls == []


# The end of a chain.


def test_a_stage_that_ray_data_deletes_ends_its_engine_and_reports_no_more(rig: Rig) -> None:
    stage = ModelStage(rig.work, rig.plan, ("phi",), ProcessLimits(), 8, rig.handle)
    engine = engine_of(stage._replica)
    assert reasons(stage(block("a"))) == [None]
    del stage
    assert engine.closed
    until(lambda: not any(thread.name == "report" for thread in threading.enumerate()), 5, "the last report")


def test_a_stage_whose_model_cannot_be_loaded_is_deleted_quietly(rig: Rig) -> None:
    rig.handle.gone = True
    with pytest.raises(ActorDiedError):
        ModelStage(rig.work, rig.plan, ("phi",), ProcessLimits(), 8, rig.handle)
