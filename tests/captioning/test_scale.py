"""Runs of thousands of views: the tables after a job, and what a job on a finished run skips. See `tests.scale`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caslie_ray.captioning import CaptionJob, _partitions, caption
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run, open_run
from tests.scale import SETTINGS, Watched, fabricate
from tests.worlds import InProcess, caption_here, fresh_run, profile, rows, stored_ids

VIEWS, DIGITS = 1_000, 1


def null_profile() -> Profile:
    return profile(settings=[*SETTINGS, f"storage.partition_digits={DIGITS}"])


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("Ray was used")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = open_run(str(tmp_path_factory.mktemp("scale") / "run"))
    fabricate(run, VIEWS, DIGITS)
    requests = caption_here(run, null_profile(), InProcess())
    assert sum(requests.values()) == sum(row["calls"] for row in rows(run))
    return Path(run.root)


def test_every_view_has_one_row_and_every_partition_one_file(done: Path) -> None:
    run = open_run(str(done))
    names = sorted({run.partition(path) for path in run.files("views")})
    assert len(names) == 16**DIGITS
    assert sorted(run.files("captions")) == [run.path("captions", f"{name}.parquet") for name in names]
    assert stored_ids(run) == sorted(run.read("views", ["view_id"])["view_id"].to_pylist())
    assert {len(row["votes"]) for row in rows(run)} == {2, 3}


def test_a_complete_run_does_not_start_ray(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fresh_run(done, tmp_path / "run")
    before = {path: Path(path).stat().st_mtime_ns for path in run.files("captions")}
    monkeypatch.setattr(_partitions, "_DISTRIBUTE_FROM", 1)
    monkeypatch.setattr(_partitions, "map_partitions", refuse)
    result = caption(run, null_profile(), quiet=True)
    assert result.missing == 0
    assert result.summary["views"] == VIEWS
    assert result.summary["this_session"]["model_calls"] == 0
    assert {path: Path(path).stat().st_mtime_ns for path in run.files("captions")} == before


def test_a_resumed_run_reads_rows_of_unfinished_partitions_only(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fresh_run(done, tmp_path / "run")
    started, untouched = run.files("captions")[:2]
    name = run.partition(started)
    half = run.read_file(started).slice(0, 64)
    run.delete([started, untouched])
    block = run.write("captions", f"{name}-0123456789abcdef", half)
    read: list[str] = []
    plain = Run.read_file

    def recording(self: Run, path: str, *more: Any, **named: Any) -> Any:
        read.append(path)
        return plain(self, path, *more, **named)

    monkeypatch.setattr(Run, "read_file", recording)
    states = {state.partition: state for state in CaptionJob(run, null_profile()).partitions.survey(())}
    assert {path for path in read if path.startswith(run.path("captions"))} == {block}
    finished = set(states) - {name, run.partition(untouched)}
    assert len(finished) == 16**DIGITS - 2
    assert not any(states[one].missing for one in finished)
    assert states[name].done == half.num_rows
    assert states[run.partition(untouched)].done == 0


@pytest.mark.chaos
@pytest.mark.timeout(5400)
def test_a_million_views(tmp_path: Path) -> None:
    """The driver is killed halfway; the test prints rates and memory."""
    views = 1_000_000
    run = open_run(str(tmp_path / "run"))
    fabricate(run, views, processes=2)
    killed, resumed, idle = Watched(run, views), Watched(run, views), Watched(run, views)
    killed.work(until=0.5)
    assert resumed.work() == 0, "\n".join(resumed.said)
    assert idle.work() == 0, "\n".join(idle.said)
    print(*killed.report(), *resumed.report(), *idle.report(), f"{idle.seconds:.1f} s", sep="\n")
    assert run.read_json("summary/caption.json")["views"] == views
    assert len(run.files("captions")) == 256
    early, late = killed.at(0.05), killed.at(0.5)
    assert early is not None
    assert late is not None
    for kind in ("driver", "monitor", "replica", "task"):
        assert getattr(late, kind) < getattr(early, kind) + 150, kind
    assert resumed.marks["first file"] < 90
    assert idle.most().monitor == 0
    assert idle.seconds < 60


@pytest.mark.timeout(3600)
def test_the_driver_does_not_grow_with_the_views(tmp_path: Path) -> None:
    """Without models, since these would take hours."""
    peaks = []
    for views in (100_000, 1_000_000):
        run = open_run(str(tmp_path / str(views)))
        fabricate(run, views, processes=2)
        watched = Watched(run, views)
        assert watched.work(settings=[*SETTINGS, "votes.rule=never"]) == 0, "\n".join(watched.said)
        assert run.read_json("summary/caption.json")["views"] == views
        peaks.append(watched.most().driver)
        print(f"{views:,} views: {views / watched.seconds:,.0f} views/s, driver peak {peaks[-1]:.0f} MiB")
    assert peaks[1] <= 1.1 * peaks[0]
