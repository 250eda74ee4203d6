"""Fusion in tasks: the same rows as in one process, resumable, and a driver that does not grow with the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caslie_ray.fusion import _job, fuse, plan_fusion
from caslie_ray.fusion._workspace import grouped
from caslie_ray.profiles import load_profile
from caslie_ray.storage.partitions import partition_names
from caslie_ray.storage.run import Run, open_run
from tests.fusion_scale import SETTINGS, fabricate_tables, measure

ROWS = 600


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = open_run(str(tmp_path / "run"))
    fabricate_tables(run, ROWS, digits=1)
    return run


def fused(run: Run) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    summary = fuse(run, load_profile("mini", SETTINGS), quiet=True)
    return summary, [
        run.read(table, partition=partition).to_pylist()
        for table in ("instructions", "experiments")
        for partition in partition_names(1)
    ]


def in_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caslie_ray.fusion._workspace._GROUP_BYTES", 12_000)


@pytest.mark.usefixtures("ray_cluster")
def test_tasks_write_the_rows_that_one_process_writes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary, rows = fused(run)
    assert summary["variants"]["uia"] == {"train": ROWS, "captions": ROWS}
    assert summary["variants"]["shuffled"]["captions"] == summary["variants"]["caslie"]["captions"] == ROWS // 3
    monkeypatch.setattr("caslie_ray.cluster.distribution.DISTRIBUTE_FROM", 1)
    in_small_groups(monkeypatch)
    other = open_run(str(tmp_path / "other"))
    fabricate_tables(other, ROWS, digits=1)
    again, found = fused(other)
    assert found == rows
    assert again == {**summary, "run": again["run"]}
    assert not other.listed(other.path("fusion"))


@pytest.mark.usefixtures("ray_cluster")
def test_the_plan_of_a_large_run_is_an_estimate_from_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(str(tmp_path / "run"))
    fabricate_tables(run, ROWS)
    narrow = load_profile("mini", ["lineup.base.context=110", "lineup.base.max_new_tokens=8"])
    (exact,) = (line for line in plan_fusion(run, narrow) if line.startswith("fit"))
    assert "caslie 200 ·" in exact
    monkeypatch.setattr("caslie_ray.cluster.distribution.DISTRIBUTE_FROM", 1)
    (estimate,) = (line for line in plan_fusion(run, narrow) if line.startswith("fit"))
    assert "about" in estimate
    assert "64 of 256 partitions were read" in estimate
    for line in (exact, estimate):
        assert "uia 600 · text 0 of 600 lose words of captions" in line


@pytest.mark.parametrize("step", ["send_captions", "send_requests", "join_bucket", "fuse_group"])
def test_a_fusion_that_was_killed_redoes_only_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    in_small_groups(monkeypatch)
    real = getattr(_job, step)
    calls: list[list[int]] = [[], []]
    attempt = 0

    def noted(*arguments: Any) -> Any:
        if not attempt and len(calls[0]) == 2:
            raise KeyboardInterrupt
        calls[attempt].append(next(number for number in arguments if type(number) is int))
        return real(*arguments)

    monkeypatch.setattr(_job, step, noted)
    with pytest.raises(KeyboardInterrupt):
        fused(run)
    attempt = 1
    summary, rows = fused(run)
    assert len(calls[0]) == 2
    assert calls[1]
    assert not set(calls[0]) & set(calls[1])
    assert summary["variants"]["uia"] == {"train": ROWS, "captions": ROWS}
    assert fused(run)[1] == rows


def test_working_files_of_other_inputs_are_not_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_job, "fuse_group", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        fused(run)
    (before,) = run.listed(run.path("fusion"))
    path = run.files("captions")[0]
    rows = run.read_file(path).to_pylist()
    run.write("captions", run.partition(path), run.read_file(path).slice(1))
    monkeypatch.undo()
    summary, _ = fused(run)
    assert rows
    assert summary["views_without_caption_row"] == 1
    assert not run.info([before.path])[0].is_file


def test_groups_are_neighbours_of_about_equal_size() -> None:
    assert grouped("abcd", [3 << 20, 3 << 20, 1 << 20, 9 << 20]) == [["a", "b"], ["c", "d"]]
    assert grouped([], []) == []
    assert len(grouped(range(5000), [4 << 20] * 5000)) <= 512


@pytest.mark.timeout(1800)
def test_the_driver_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    few, many = (measure(rows, tmp_path / str(rows)) for rows in (100_000, 1_000_000))
    assert many["driver_peak_mib"] <= 1.1 * few["driver_peak_mib"]
