"""The completion marker: when it is written, and for what it is valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caslie_ray.captioning._completion_marker import read_completion
from caslie_ray.captioning._counts import count_partition
from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.engines import Choice, Failure
from caslie_ray.roles import resolve
from caslie_ray.storage.run import Run
from tests.captioning.fakes import KeyedAnswers, partitions
from tests.worlds import caption_here, edit_views, fresh_run, profile, rows, voter


def captioned_run(world: Path, path: Path, answers: KeyedAnswers) -> tuple[Run, list[str]]:
    run = fresh_run(world, path)
    caption_here(run, profile(), answers)
    return run, partitions(run)


def test_a_finished_partition_is_surveyed_by_its_marker(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run, names = captioned_run(world, tmp_path / "run", answers)
    lineup = resolve(profile())
    for name in names:
        counts = read_completion(run, name, lineup)
        assert counts is not None
        assert counts == count_partition(run, name, lineup)
        fast = partition_status(run, name, lineup)
        for path in run.files("captions", name):  # without a marker
            run.write("captions", name, run.read_file(path))
        assert read_completion(run, name, lineup) is None
        assert partition_status(run, name, lineup) == fast


def test_a_marker_is_valid_for_its_lineup_and_views_only(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run, names = captioned_run(world, tmp_path / "run", answers)
    lineup = resolve(profile())
    for other in (
        profile(settings=["votes.schedule=full"]),
        profile(voter("llama-3b")),
        profile(settings=["votes.rule=always"]),
    ):
        assert read_completion(run, names[0], resolve(other)) is None
    changed = edit_views(run, lambda row: {**row, "view_id": f"{row['view_id'][:-1]}x"} if row["view_id"] else None)
    assert changed
    assert [read_completion(run, name, lineup) for name in names] == [None] * len(names)


def test_a_partition_with_retryable_rows_has_no_marker(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())

    class Failing(KeyedAnswers):
        def choose(self, role: Any, requests: Any, choices: Any) -> list[Choice]:
            failure = Failure("phi is down", retryable=True)
            return [Choice(request.key, (), 0, False, failure) for request in requests]

    caption_here(run, profile(), Failing())
    names = partitions(run)
    assert [read_completion(run, name, lineup) for name in names] == [None] * len(names)
    again = [partition_status(run, name, lineup, lineup.names) for name in names]
    assert sum(state.missing for state in again) == len(rows(run))
