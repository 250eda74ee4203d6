"""Replicas whose model fails to load: which are tried again, where, and what a job says."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import caslie_ray
from caslie_ray.captioning import caption
from caslie_ray.engines.load_errors import LoadFailure
from caslie_ray.errors import PoolDown
from caslie_ray.pipeline.load_policy import Attempt, LoadPolicy, nodes_with_room
from caslie_ray.pipeline.placement import PoolPlan
from tests import load_faults
from tests.chains import Lab, plan
from tests.clusters import Nodes, nodes, until
from tests.worlds import fresh_run, profile, voter

NODES = {"a": "10.0.0.1", "b": "10.0.0.2"}
RETRY = LoadFailure("retry", "429 Too Many Requests", "run the job again later")
ELSEWHERE = LoadFailure("elsewhere", "No space left on device", "free disk space on this node")
SHELF = Path(caslie_ray.__file__).parent / "miniature" / "checkpoints"


# The policy.


def test_pauses_double_apply_to_the_pool_and_end_with_the_tries() -> None:
    policy = LoadPolicy(tries=4, pause_s=10.0)
    attempt: Attempt | None = Attempt()
    pauses = []
    while attempt is not None:
        policy.paused_until = 0.0
        attempt, messages = policy.after(attempt, RETRY, "a", NODES)
        pauses.append(policy.paused_until - time.monotonic() if policy.paused_until else 0.0)
    assert [pytest.approx(pause, rel=0.3) for pause in (10.0, 20.0, 40.0)] == pauses[:3]
    assert pauses[3] == 0.0
    assert messages == [
        "a replica failed to load on 10.0.0.1 (try 4 of 4): 429 Too Many Requests (run the job again later); given up"
    ]
    policy.after(Attempt(), RETRY, "b", NODES)
    assert 7.0 < policy.delay_s() < 18.0, "a replica that has not failed waits too"
    assert LoadPolicy(tries=4, pause_s=10.0).delay_s() == 0.0


def test_a_pause_is_at_most_five_minutes() -> None:
    policy = LoadPolicy(tries=100, pause_s=60.0)
    policy.after(Attempt(50), RETRY, "a", NODES)
    assert policy.paused_until - time.monotonic() < 400


def test_a_final_failure_is_not_retried() -> None:
    decision = LoadPolicy(tries=4, pause_s=10.0).after(
        Attempt(), LoadFailure("final", "no such model", "check it"), "a", NODES
    )
    assert decision == (None, ["a replica failed to load on 10.0.0.1: no such model (check it)"])


def test_a_node_at_fault_is_left_at_once_and_after_two_replicas_for_good() -> None:
    policy = LoadPolicy(tries=4, pause_s=10.0)
    attempt, messages = policy.after(Attempt(), ELSEWHERE, "a", NODES)
    assert attempt is not None
    assert policy.avoided(attempt, NODES) == {"a"}
    assert policy.delay_s() == 0.0
    assert policy.avoided(Attempt(), NODES) == frozenset(), "one replica alone does not condemn a node"
    assert messages[0].endswith("; next try on another node")
    _, messages = policy.after(Attempt(), ELSEWHERE, "a", NODES)
    assert messages[1:] == ["node a (10.0.0.1): No space left on device; replicas go elsewhere"]
    assert policy.avoided(Attempt(), NODES) == {"a"}
    assert policy.avoided(Attempt(anywhere=True), NODES) == frozenset()
    assert policy.after(Attempt(), ELSEWHERE, "a", NODES).messages[1:] == [], "said once"


@pytest.mark.parametrize(("grows", "avoided"), [(False, frozenset()), (True, frozenset({"a"}))])
def test_without_another_node_a_cluster_that_does_not_grow_uses_the_same(grows: bool, avoided: frozenset[str]) -> None:
    policy = LoadPolicy(tries=4, pause_s=10.0, grows=grows)
    attempt, _ = policy.after(Attempt(), ELSEWHERE, "a", {"a": "10.0.0.1"})
    assert attempt is not None
    assert policy.avoided(attempt, ["a"]) == avoided
    assert (policy.delay_s() > 0.0) is not grows, "the same node is given time to recover"


def test_only_live_and_large_enough_nodes_count() -> None:
    found = [
        {"NodeID": "head", "Alive": True, "NodeManagerAddress": "10.0.0.1", "Resources": {"memory": 8.0}},
        {"NodeID": "gone", "Alive": False, "NodeManagerAddress": "10.0.0.2", "Resources": {"CPU": 8.0, "GPU": 1.0}},
        {"NodeID": "cpu", "Alive": True, "NodeManagerAddress": "10.0.0.3", "Resources": {"CPU": 8.0}},
        {"NodeID": "gpu", "Alive": True, "NodeManagerAddress": "10.0.0.4", "Resources": {"CPU": 8.0, "GPU": 1.0}},
    ]
    assert nodes_with_room(found, {"CPU": 1.0, "GPU": 0.5, "memory": 0.0}) == {"gpu": "10.0.0.4"}


# Jobs and pools on real replicas.


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """A miniature voter in a folder of its own."""
    shutil.copytree(SHELF / "voter-phi", tmp_path / "model" / "voter-phi")
    return str(tmp_path / "model" / "voter-phi")


def settings(*more: str) -> list[str]:
    return ["captions.source=dataset", "faults.load_pause_s=0.2", *more]


def failing(checkpoint: str, engine: str, **more: Any) -> dict[str, Any]:
    return voter("phi", checkpoint=checkpoint, engine=f"tests.load_faults:{engine}", **more)


def pool(checkpoint: str, engine: str, **more: Any) -> PoolPlan:
    return plan("phi", f"tests.load_faults:{engine}", checkpoint=checkpoint, **more)


@pytest.mark.parametrize(("engine", "tries"), [("card_in_use_once", 2), ("broken_card_once", 2)])
def test_a_load_that_fails_for_a_while_is_retried(
    make: Callable[..., Lab], checkpoint: str, engine: str, tries: int
) -> None:
    lab = make(pool(checkpoint, engine), load_tries=3)
    assert len(list(lab.chain(lab.work("Is it red?")))) == 1
    assert len(load_faults.loads(checkpoint)) == tries
    assert lab.stats().deaths == tries - 1


def test_tries_are_bounded_and_logged_while_models_load(make: Callable[..., Lab], checkpoint: str) -> None:
    lab = make(pool(checkpoint, "hub_down"), load_tries=3)
    with pytest.raises(PoolDown, match=r"^phi is down: .*503 Service Unavailable.*later"):
        list(lab.chain(lab.work("Is it red?")))
    assert len(load_faults.loads(checkpoint)) == 3
    logged = lab.messages()
    assert len(logged) == 3
    assert logged[0].startswith("phi: a replica failed to load")
    assert "(try 1 of 3)" in logged[0]
    assert logged[2].endswith("; given up")


def test_a_pool_that_is_not_needed_is_given_up_after_its_tries(make: Callable[..., Lab], checkpoint: str) -> None:
    lab = make(pool(checkpoint, "hub_down", needed=False), load_tries=3)
    list(lab.chain(lab.work("Is it red?")))
    (reason,) = lab.column("phi")
    assert "503 Service Unavailable" in reason
    assert len(load_faults.loads(checkpoint)) == 3


def test_extra_replicas_that_cannot_be_loaded_leave_the_pool_running(make: Callable[..., Lab], checkpoint: str) -> None:
    lab = make(pool(checkpoint, "only_the_first", limit=2, minimum=2), load_tries=3)
    chain = lab.chain(lab.work(*["Is it red?"] * 150, block_rows=1))
    done = next(chain)["views"]
    logged: list[str] = []

    def given_up() -> bool:
        logged.extend(lab.messages())
        return any("given up" in line for line in logged)

    until(given_up, what="the extra replica to be given up")
    assert len(logged) == 3
    assert len(load_faults.loads(checkpoint)) == 4
    assert done + sum(report["views"] for report in chain) == 150


def test_a_final_error_ends_the_job_immediately_with_a_remedy(world: Path, tmp_path: Path, checkpoint: str) -> None:
    run = fresh_run(world, tmp_path / "run")
    chosen = profile(failing(checkpoint, "gated"), settings=["captions.source=dataset"])
    with pytest.raises(PoolDown, match=r"phi \(.*voter-phi\) cannot be started: .*403.*accept its licence"):
        caption(run, chosen, quiet=True)
    assert len(load_faults.loads(checkpoint)) == 1


def test_a_job_is_complete_although_the_hub_failed_twice(world: Path, tmp_path: Path, checkpoint: str) -> None:
    run = fresh_run(world, tmp_path / "run")
    result = caption(run, profile(failing(checkpoint, "hub_down_twice"), settings=settings()), quiet=True)
    assert result.missing == 0
    assert len(load_faults.loads(checkpoint)) == 3
    assert result.summary["this_session"]["models"]["phi"]["replicas_lost"] == 2


# Nodes.


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(2) as one:
        yield one


def submitted(cluster: Nodes, run: Path, checkpoint: str, engine: str, *more: str) -> Any:
    voters = json.dumps([failing(checkpoint, engine, resources={"cpus": 0.2, "gpus": 0.5})])
    return cluster.submit(
        "caption",
        "--run",
        str(run),
        *(part for one in (f"lineup.voters={voters}", *settings(*more)) for part in ("--set", one)),
    )


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_replica_moves_to_another_node_where_one_is_broken(
    cluster: Nodes, world: Path, tmp_path: Path, checkpoint: str
) -> None:
    cluster.fill(2)
    fresh_run(world, tmp_path / "run")
    code, said = submitted(cluster, tmp_path / "run", checkpoint, "disk_full").end(400)
    assert code == 0, said
    first, *rest = load_faults.loads(checkpoint)
    assert len(rest) == 1, "one other node is left: nothing is tried twice"
    assert rest[0] != first
    assert "No space left on device" in said
    assert "next try on another node" in said


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_cluster_that_may_grow_is_given_time_for_another_node(
    cluster: Nodes, world: Path, tmp_path: Path, checkpoint: str
) -> None:
    cluster.fill(1)
    fresh_run(world, tmp_path / "run")
    job = submitted(cluster, tmp_path / "run", checkpoint, "disk_full")
    until(lambda: load_faults.loads(checkpoint), what="the first load")
    added = cluster.add()
    code, said = job.end(400)
    assert code == 0, said
    assert load_faults.loads(checkpoint)[1:] == [str(added.all_processes["raylet"][0].process.pid)]


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_cluster_that_does_not_grow_retries_on_its_only_node(
    cluster: Nodes, world: Path, tmp_path: Path, checkpoint: str
) -> None:
    cluster.fill(1)
    fresh_run(world, tmp_path / "run")
    job = submitted(cluster, tmp_path / "run", checkpoint, "broken_card_once", "faults.start_timeout_s=30")
    code, said = job.end(400)
    assert code == 0, said
    assert len(load_faults.loads(checkpoint)) == 2
    assert "found no room on another node" in said
