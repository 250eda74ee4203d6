from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from caslie_ray.capacity import capacity, launcher_capacity
from caslie_ray.cluster import room

CLUSTER = Path(__file__).parents[1] / "cluster.yaml"


def test_the_launcher_s_file_says_how_far_a_cluster_grows() -> None:
    limits = launcher_capacity(yaml.safe_load(CLUSTER.read_text(encoding="utf-8")))
    assert limits == {"CPU": 4 * 16 + 10 * 16, "GPU": 10}


def test_a_group_is_bounded_by_the_cluster() -> None:
    node = {"resources": {"GPU": 8}, "max_workers": 50}
    assert launcher_capacity({"max_workers": 3, "available_node_types": {"gpu": node}}) == {"GPU": 24}
    assert launcher_capacity({"max_workers": 3, "available_node_types": {"gpu": {"max_workers": 2}}}) == {}


def test_a_ray_of_this_machine_has_what_it_has(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert capacity(CLUSTER) == room()


def test_a_cluster_that_was_joined_has_what_its_autoscaler_may_start(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert capacity(tmp_path / "none") is None
    found = capacity(CLUSTER)
    assert found is not None
    assert (found["CPU"], found["GPU"]) == (224, 10)
    assert "memory" not in found, "the memory of the head is no limit for nodes to come"
