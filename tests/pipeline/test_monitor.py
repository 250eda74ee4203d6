"""The monitor of a chain as a plain object: which replicas count, and when a pool is down."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.load_errors import LoadFailure
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.pipeline.load_policy import Attempt
from caslie_ray.pipeline.monitor import Monitor
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.pool_state import Counts, PoolView
from caslie_ray.profiles.faults import FaultSettings

START_S, SILENT_S = 30.0, 15.0
RETRY = LoadFailure("retry", "503 Service Unavailable", "later")
ELSEWHERE = LoadFailure("elsewhere", "No space left on device", "free disk space on this node")
FINAL = LoadFailure("final", "no such checkpoint", "check `checkpoint`")


def plan(key: str = "phi", *, needed: bool = True, limit: int = 2) -> PoolPlan:
    return PoolPlan(key, key, EngineSpec(f"org/{key}"), 1.0, 0.5, 2.0, 1, limit, needed)


@dataclass
class Cluster:
    """What the monitor sees: the time, the nodes, and which of them drain."""

    now: float = field(default_factory=time.monotonic)
    alive: list[str] = field(default_factory=lambda: ["a", "b"])
    draining: dict[str, float] = field(default_factory=dict)

    def nodes(self) -> list[dict[str, Any]]:
        room = {"CPU": 4.0, "GPU": 1.0, "memory": 2.0**40}
        return [
            {"NodeID": name, "Alive": name in self.alive, "NodeManagerAddress": f"10.0.0.{name}", "Resources": room}
            for name in ("a", "b")
        ]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    one = Cluster()
    for module in ("monitor", "pool_state"):
        monkeypatch.setattr(f"caslie_ray.pipeline.{module}.time", SimpleNamespace(monotonic=lambda: one.now))
    monkeypatch.setattr("caslie_ray.pipeline.monitor.ray.nodes", one.nodes)
    monkeypatch.setattr("caslie_ray.pipeline.monitor.draining_nodes", lambda: dict(one.draining))
    return one


class Watched:
    """A monitor, and the replicas that report to it."""

    def __init__(self, cluster: Cluster, *plans: PoolPlan, grows: bool = False, **faults: Any) -> None:
        settings = FaultSettings(**{"start_timeout_s": START_S, "load_tries": 2, **faults})
        self.monitor = Monitor(plans or (plan(),), settings, grows)
        self.cluster = cluster
        self.messages: list[str] = []

    def ready(self, replica: str, node: str = "a", pool: str = "phi") -> None:
        self.monitor.started(pool, replica, node)
        self.monitor.loaded(pool, replica, 2.0)

    def report(
        self,
        replica: str,
        pool: str = "phi",
        details: Mapping[str, float] | None = None,
        blocks: int = 0,
        **counts: Any,
    ) -> Any:
        return self.monitor.report(pool, replica, Counts(**counts), details or {}, blocks=blocks)

    def wait(self, seconds: float, *reporting: str) -> None:
        """Let time pass while some replicas report each second, and the driver looks."""
        for _ in range(int(seconds)):
            self.cluster.now += 1
            for replica in reporting:
                self.report(replica)
            self.view()

    def view(self, number: int = 0) -> PoolView:
        messages, views = self.monitor.quick_status()
        self.messages += messages
        return views[number]

    def stats(self, pool: str = "phi") -> PoolStats:
        return self.monitor.stats()[pool]


# Counters.


def test_counters_are_summed_over_replicas_and_outlive_them(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.ready("two", "b")
    watched.report("one", calls=2, requests=16, busy_s=1.5)
    watched.report("one", calls=3, requests=24, busy_s=2.0, deaths=1)
    watched.report("two", calls=1, requests=8, busy_s=0.5)
    cluster.alive = ["b"]
    watched.wait(3, "two")
    watched.ready("one", "b")
    watched.report("one", calls=1, requests=4)
    stats = watched.stats()
    assert (stats.calls, stats.requests, stats.busy_s, stats.load_s) == (5, 36, 2.5, 2.0)
    assert stats.deaths == 2, "the engine's process, and the replica"


def test_a_late_report_does_not_lower_the_counters(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.report("one", calls=3, requests=24)
    watched.report("one", calls=2, requests=16)
    assert (watched.stats().calls, watched.stats().requests) == (3, 24)


def test_details_of_engines_are_kept_of_replicas_that_were_released(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.report("one", details={"padding": 3.0, "memory_peak": 5.0})
    watched.wait(SILENT_S + 2)
    watched.ready("two")
    watched.report("two", details={"padding": 4.0, "memory_peak": 4.0})
    assert watched.stats().details == {"padding": 7.0, "memory_peak": 5.0}


# Replicas that go.


def test_a_replica_whose_node_was_lost_is_counted_at_once(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.ready("two", "b")
    cluster.alive = ["b"]
    watched.wait(3, "two")
    assert watched.view().stats.ready == 1
    assert watched.stats().deaths == 1
    assert watched.messages == ["phi: a replica was lost: its node was lost"]


def test_a_replica_that_starts_again_was_lost(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.ready("one")
    assert watched.stats().deaths == 1
    watched.view()
    assert watched.messages == ["phi: a replica was lost: its process ended"]


def test_a_replica_that_starts_again_after_a_while_was_lost_too(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.wait(2 * SILENT_S)
    watched.ready("one", "b")
    assert watched.stats().deaths == 1
    assert watched.view().stats.ready == 1


def test_a_stage_without_input_is_released_and_neither_lost_nor_down(cluster: Cluster) -> None:
    """Ray Data ends its actors without a word, and later stages work on for longer than a start may take."""
    watched = Watched(cluster, plan(), plan("mistral"))
    watched.ready("one")
    watched.ready("two", pool="mistral")
    for _ in range(int(3 * START_S)):
        cluster.now += 1
        watched.report("two", pool="mistral")
        assert watched.view().error is None
    assert watched.view().stats.ready == 0
    assert watched.stats().deaths == 0
    assert watched.messages == []


def test_a_replica_that_was_only_slow_to_report_counts_again(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.wait(SILENT_S + 2)
    assert watched.view().stats.ready == 0
    watched.report("one", calls=1)
    assert watched.view().stats.ready == 1
    assert watched.stats().deaths == 0


def test_replicas_of_an_earlier_chain_are_neither_lost_nor_ready(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.report("one", requests=5)
    watched.monitor.begin()
    watched.report("one", requests=8)
    assert watched.view().stats.ready == 0
    watched.ready("two", "b")
    watched.wait(2 * START_S, "two")
    assert watched.view().stats.ready == 1
    assert watched.view().error is None
    assert (watched.stats().requests, watched.stats().deaths) == (8, 0)


def test_a_replica_that_is_lost_while_it_loads_is_no_failure(cluster: Cluster) -> None:
    watched = Watched(cluster)
    for _ in range(5):
        watched.monitor.started("phi", "one", "a")
    cluster.alive = ["b"]
    watched.wait(3)
    assert watched.view().unplaced, "it is waited for, but not there"
    watched.ready("one", "b")
    assert watched.stats().deaths == 0
    assert watched.view().error is None


def test_blocks_of_a_replica_that_cannot_be_placed_are_given_up_once_no_other_works(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.ready("two", "b")
    cluster.alive = ["a"]
    for _ in range(60):  # longer than the limit, while the other replica works
        cluster.now += 1
        watched.report("one", blocks=1)
        assert not watched.view().stuck
    watched.wait(15, "one")
    assert not watched.view().stuck
    watched.wait(10, "one")
    assert watched.view().stuck
    watched.monitor.begin()
    watched.ready("three")
    watched.wait(90, "three")
    assert not watched.view().stuck, "a chain of its own, which lost nothing"


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_replica_that_went_silent_with_blocks_is_lost_and_one_without_is_released(
    cluster: Cluster, blocks: int
) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.ready("two", "b")
    watched.report("two", blocks=blocks)
    watched.wait(SILENT_S + 70, "one")
    assert watched.view().stuck == bool(blocks)


def test_a_lost_replica_that_loads_again_is_waited_for(cluster: Cluster) -> None:
    watched = Watched(cluster, start_timeout_s=1000.0)
    watched.ready("one")
    watched.ready("two", "b")
    cluster.alive = ["a"]
    watched.wait(5, "one")
    watched.monitor.started("phi", "two", "a")
    watched.wait(90, "one", "two")
    assert not watched.view().stuck


# Nodes that are about to go.


def test_a_replica_on_a_draining_node_is_asked_to_leave_once_and_is_not_lost(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.ready("two", "b")
    assert not watched.report("one").leave
    cluster.draining = {"a": 0.0}
    cluster.now += 5
    assert watched.report("one").leave
    assert not watched.report("one").leave
    assert not watched.report("two").leave
    watched.ready("one", "b")
    assert watched.stats().deaths == 0
    watched.view()
    assert watched.messages == ["phi: its node will be taken away: another replica is being started"]


def test_replicas_of_an_earlier_chain_are_ended(cluster: Cluster) -> None:
    watched = Watched(cluster)
    first = watched.monitor.begin()
    watched.monitor.started("phi", "one", "a", first)
    assert not watched.report("one").end
    second = watched.monitor.begin()
    watched.monitor.started("phi", "late", "a", first)
    watched.monitor.started("phi", "new", "b", second)
    assert [watched.report(name).end for name in ("one", "late", "new")] == [True, True, False]
    assert watched.view().stats.deaths == 0


# Loads that fail.


def test_a_transient_load_failure_is_retried_after_a_pause_for_the_pool(cluster: Cluster) -> None:
    watched = Watched(cluster, load_pause_s=10.0)
    watched.monitor.started("phi", "one", "a")
    following, elsewhere = watched.monitor.load_failed("phi", "one", Attempt(), RETRY)
    assert following == Attempt(2)
    assert not elsewhere
    assert 7.0 < watched.monitor.pause_s("phi") < 18.0
    watched.ready("one")
    assert watched.view().error is None
    assert (watched.stats().deaths, watched.stats().down) == (1, None)
    assert watched.messages[0].startswith("phi: a replica failed to load on 10.0.0.a (try 1 of 2): 503")


def test_tries_and_pauses_reset_the_start_timeout(cluster: Cluster) -> None:
    """All tries together take longer than the time limit for the start, which holds for each of them."""
    watched = Watched(cluster, load_tries=5)
    watched.monitor.started("phi", "one", "a")
    attempt = Attempt()
    for _ in range(4):
        watched.wait(START_S - 1, "one")
        following, _ = watched.monitor.load_failed("phi", "one", attempt, RETRY)
        assert following is not None
        attempt = following
    assert watched.view().error is None


def test_a_pool_whose_every_replica_was_given_up_is_down(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.monitor.started("phi", "one", "a")
    watched.monitor.started("phi", "two", "b")
    assert watched.monitor.load_failed("phi", "one", Attempt(), FINAL) == (None, False)
    assert watched.view().error is None, "another one still loads"
    assert watched.report("one").down is None
    watched.monitor.load_failed("phi", "two", Attempt(), FINAL)
    assert watched.view().error == "phi (org/phi) cannot be started: no such checkpoint (check `checkpoint`)"
    assert watched.report("one").down == "no such checkpoint (check `checkpoint`)"
    assert watched.monitor.started("phi", "three", "a") is not None, "what starts now loads nothing"


def test_a_replica_that_was_given_up_leaves_the_others_running(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.monitor.started("phi", "two", "b")
    watched.monitor.load_failed("phi", "two", Attempt(2), RETRY)
    watched.wait(2 * START_S, "one", "two")
    assert watched.view().error is None
    assert watched.view().stats.ready == 1
    assert "given up" in watched.messages[0]


def test_the_others_continue_without_a_pool_that_is_not_needed(cluster: Cluster) -> None:
    watched = Watched(cluster, plan(needed=False))
    watched.monitor.started("phi", "one", "a")
    watched.monitor.load_failed("phi", "one", Attempt(2), RETRY)
    view = watched.view()
    assert not view.needed
    assert view.error is not None
    assert not view.unplaced, "its replica passes blocks through"
    assert watched.messages[-1] == "phi: the others go on without it: 503 Service Unavailable (later)"


def test_a_pool_that_has_no_replica_in_time_is_down_and_reports_what_it_needs(cluster: Cluster) -> None:
    watched = Watched(cluster, plan(), plan("mistral", needed=False))
    watched.ready("one", pool="mistral")
    for _ in range(int(START_S) + 2):
        cluster.now += 1
        watched.report("one", pool="mistral")
    view = watched.view()
    assert view.error == (
        "phi: 0 of 1 replicas were ready after 30 s; each needs 1 CPUs, 0.5 GPUs and 2 GiB. Give the cluster more, or"
        " set schedule=staged, so that one model runs at a time"
    )
    assert view.unplaced
    assert watched.view(1).error is None


def test_a_pool_that_was_down_comes_back_with_a_replica(cluster: Cluster) -> None:
    watched = Watched(cluster, plan(needed=False))
    watched.wait(START_S + 2)
    assert watched.view().error is not None
    watched.ready("one")
    assert watched.view().error is None
    assert watched.stats().down is None


def test_a_start_that_times_out_reports_the_last_failure(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.monitor.started("phi", "one", "a")
    watched.monitor.load_failed("phi", "one", Attempt(), RETRY)
    watched.wait(START_S + 2, "one")
    error = watched.view().error
    assert error is not None
    assert error.startswith("phi: 0 of 1 replicas were ready after 30 s; a replica is still loading: raise")
    assert error.endswith("The last failure: 503 Service Unavailable (later)")


def test_a_pool_that_lost_its_last_replica_is_waited_for(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    cluster.alive = ["b"]
    watched.wait(START_S)
    assert watched.view().error is None
    watched.ready("one", "b")
    watched.wait(2 * START_S, "one")
    assert watched.view().error is None
    cluster.alive = []
    watched.wait(START_S + 5)
    assert "0 of 1 replicas were ready after 30 s" in str(watched.view().error)


# Nodes at fault.


def test_a_node_on_which_a_model_cannot_be_loaded_is_avoided(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.monitor.started("phi", "one", "a")
    following, elsewhere = watched.monitor.load_failed("phi", "one", Attempt(), ELSEWHERE)
    assert following is not None
    assert elsewhere
    watched.monitor.moved("phi", "one")
    assert watched.view().avoid == {"a"}
    assert watched.view().unplaced


def test_the_only_node_is_tried_again(cluster: Cluster) -> None:
    cluster.alive = ["a"]
    watched = Watched(cluster)
    watched.monitor.started("phi", "one", "a")
    assert watched.monitor.load_failed("phi", "one", Attempt(), ELSEWHERE)[1] is False
    assert watched.view().avoid == frozenset()


def test_another_node_that_never_joins_is_not_waited_for_indefinitely(cluster: Cluster) -> None:
    cluster.alive = ["a"]
    watched = Watched(cluster, grows=True)
    watched.monitor.started("phi", "one", "a")
    assert watched.monitor.load_failed("phi", "one", Attempt(), ELSEWHERE)[1]
    watched.monitor.moved("phi", "one")
    assert watched.view().avoid == {"a"}, "it is waited for"
    watched.wait(START_S + 2)
    assert watched.view().avoid == frozenset()
    assert watched.messages[-1] == "phi: a replica found no room on another node in time: any node will do"
    assert watched.view().error is None
    watched.wait(START_S + 2)
    assert watched.view().error is not None, "once"


def test_a_model_that_fails_on_every_node_is_given_up_although_new_nodes_keep_joining(cluster: Cluster) -> None:
    watched = Watched(cluster, grows=True, load_tries=3)
    for number, node in enumerate("abc"):
        assert watched.view().error is None
        watched.monitor.started("phi", f"replica {number}", node)
        following, elsewhere = watched.monitor.load_failed("phi", f"replica {number}", Attempt(), ELSEWHERE)
        if following is not None:
            assert elsewhere
            watched.monitor.moved("phi", f"replica {number}")
    assert following is None
    assert "No space left on device" in str(watched.view().error)


# Engines that fail on whatever they are asked.


def test_a_pool_whose_engine_answered_nothing_is_down(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    assert watched.monitor.fail("phi", "one", "its process ended 5 times in a row")
    assert watched.view().error == "phi is down: its process ended 5 times in a row"
    assert watched.report("one").down == "its process ended 5 times in a row"


def test_an_engine_that_answered_before_is_started_again_on_another_node_once(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.ready("two", "b")
    watched.report("one", requests=8)
    assert not watched.monitor.fail("phi", "one", "CUDA error")
    view = watched.view()
    assert view.error is None
    assert view.avoid == {"a"}
    assert watched.messages == ["phi: a replica is started again: CUDA error"]
    assert watched.monitor.fail("phi", "one", "CUDA error"), "nothing was answered in between"


def test_a_replica_that_works_alone_is_restarted_on_the_same_node(cluster: Cluster) -> None:
    watched = Watched(cluster)
    watched.ready("one")
    watched.report("one", requests=8)
    assert not watched.monitor.fail("phi", "one", "the model was not loaded again")
    assert watched.view().avoid == frozenset()
