from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from caslie_ray.cluster.capacity import capacity, cluster_shortage, launcher_capacity
from caslie_ray.cluster.connection import Connection, connect, total_resources
from caslie_ray.cluster.shortage import Need
from caslie_ray.errors import RunError
from caslie_ray.storage.run import open_run
from tests.clusters import nodes
from tests.training.test_job import write_instructions
from tests.worlds import fresh_run

CLUSTER = Path(__file__).parents[2] / "cluster.yaml"


def test_the_launcher_s_file_states_how_far_a_cluster_grows() -> None:
    limits = launcher_capacity(yaml.safe_load(CLUSTER.read_text(encoding="utf-8")))
    assert limits == {"CPU": 4 * 16 + 10 * 16, "GPU": 10}


def test_a_group_is_bounded_by_the_cluster() -> None:
    node = {"resources": {"GPU": 8}, "max_workers": 50}
    assert launcher_capacity({"max_workers": 3, "available_node_types": {"gpu": node}}) == {"GPU": 24}
    assert launcher_capacity({"max_workers": 3, "available_node_types": {"gpu": {"max_workers": 2}}}) == {}


def test_a_local_ray_has_the_resources_of_this_machine(ray_cluster: None) -> None:
    assert capacity(Connection(joined=False), CLUSTER) == total_resources()


JOINED = Connection(joined=True)


def test_a_cluster_that_was_joined_has_what_its_autoscaler_may_start(ray_cluster: None, tmp_path: Path) -> None:
    assert capacity(JOINED, tmp_path / "none") is None
    found = capacity(JOINED, CLUSTER)
    assert found is not None
    assert (found["CPU"], found["GPU"]) == (224, 10)
    assert "memory" not in found, "the memory of the head is no limit for nodes to come"


def test_a_job_joins_what_ray_address_names(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert connect() == JOINED
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert connect() == Connection(joined=False)


def test_the_address_of_a_dashboard_is_refused_with_a_remedy(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    with pytest.raises(RunError, match=r"is the address of a dashboard: .*`unset RAY_ADDRESS`"):
        connect()


AUTOSCALED = {"autoscaler_report": {"node_type_mapping": {"192.0.2.7": "head", "192.0.2.8": "gpu_spot"}}}


@pytest.mark.parametrize(
    ("need", "count", "reason"),
    [
        ({"GPU": 1.0, "CPU": 8.0}, 10, None),
        ({"GPU": 1.0, "CPU": 8.0}, 11, "captioner: 12 GPUs are needed and the cluster can grow to 11"),
        (
            {"GPU": 2.0},
            1,
            "captioner: each takes 2 GPUs of one node, and no node has that: the cluster can grow to nodes",
        ),
        ({"memory": 2.0**50}, 1, None),  # the file lists no memory
    ],
)
def test_an_autoscaler_is_given_what_its_largest_nodes_can_hold(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, need: dict[str, float], count: int, reason: str | None
) -> None:
    monkeypatch.setattr("caslie_ray.cluster.capacity._report", lambda: AUTOSCALED)
    # The Ray of the tests is the head of the cluster: it has a GPU of its own.
    count += reason is not None and need.get("GPU") == 1.0
    found = cluster_shortage([Need("captioner", need, count)], JOINED, CLUSTER)
    assert (None if found is None else found.reason[: len(reason or "")]) == reason


def test_a_cluster_of_unknown_capacity_is_waited_for(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need = [Need("captioner", {"GPU": 99.0})]
    left_open = tmp_path / "left_open.yaml"
    left_open.write_text("{max_workers: 2, available_node_types: {gpu: {max_workers: 2, node_config: {}}}}")
    for report in (None, {}, AUTOSCALED):
        monkeypatch.setattr("caslie_ray.cluster.capacity._report", lambda report=report: report)
        assert cluster_shortage(need, JOINED, tmp_path / "none") is None
        assert cluster_shortage(need, JOINED, left_open) is None, "the machine's type decides on its resources"


@pytest.mark.cluster
def test_a_job_reports_at_once_that_a_cluster_without_an_autoscaler_is_too_small(tmp_path: Path, world: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    write_instructions(open_run(str(tmp_path / "trained")))
    large = ["lineup.captioner.resources={cpus: 0.1, gpus: 2}", "schedule=staged", "lineup.captioner.alone.gpus=2"]
    many = [
        "training.num_workers={min: 3, max: 3}",
        "training.resources={cpus: 0.1, gpus: 1}",
        "training.variants=[caslie]",
    ]
    with nodes(2) as cluster:
        jobs = [
            cluster.submit("caption", "--run", run.uri, "--set", *large),
            cluster.submit("train", "--run", str(tmp_path / "trained"), "--set", *many),
        ]
        ended = [job.end(100) for job in jobs]
        seconds = time.monotonic() - jobs[0].begun
    assert [code for code, _ in ended] == [1, 1], ended
    assert (
        "captioner: each takes 0.1 CPUs and 2 GPUs of one node, and no node has that: the cluster, which has no"
        " autoscaler, has nodes of 2 CPUs and 1 GPUs; lower resources, alone or pool.min"
    ) in ended[0][1]
    assert (
        "3 training workers: 3 GPUs are needed and the cluster, which has no autoscaler, has 2; lower"
        " training.num_workers or training.resources, or start more or larger nodes"
    ) in ended[1][1]
    assert seconds < 90, "start_timeout_s is 600"
