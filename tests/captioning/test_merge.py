"""Merging the files of a partition, within a job and across jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from caslie_ray.captioning._caption_work import CaptionWork, caption_partition
from caslie_ray.captioning._completion_marker import read_completion
from caslie_ray.captioning._merge import merge_partition
from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.captioning._partitions import Partitions
from caslie_ray.roles import resolve
from caslie_ray.storage.lease_files import Fence
from tests.captioning.fakes import KeyedAnswers, partitions
from tests.worlds import VOTERS, caption_here, fresh_run, profile, rows, voter


def test_an_outdated_row_counts_as_waiting(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption_here(run, profile(*map(voter, VOTERS[:3])), answers)
    changed = resolve(profile(*map(voter, VOTERS[1:4])))
    names = partitions(run)
    before = rows(run)
    waiting = sum(merge_partition(run, name, changed) for name in names)
    assert waiting == sum(partition_status(run, name, changed).waits.total() for name in names) > 0
    assert len(rows(run)) == len(before)


def test_answers_of_a_stage_are_merged(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    streamed, run = fresh_run(world, tmp_path / "streamed"), fresh_run(world, tmp_path / "staged")
    calls = caption_here(streamed, profile(), answers)
    answers.calls = {}
    lineup = resolve(profile())
    names = partitions(run)
    for role in lineup.roles:
        work = CaptionWork(run, lineup, 1, frozenset({role.name}), role.name)
        for name in names:
            blocks, answered = 0, 0
            for report in caption_partition(work, name, answers):
                blocks, answered = blocks + 1, answered + report["views"]
                last = run.files(role.answers, name)
            assert len(last) == min(blocks, answered) or not blocks
        written = run.files(role.answers)
        assert len(written) == len({run.partition(path) for path in written})
    assert [merge_partition(run, name, lineup) for name in names] == [0] * len(names)
    assert rows(run) == rows(streamed)
    assert answers.calls == calls


def test_each_partition_ends_in_one_file_for_any_block_size(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())
    work = CaptionWork(run, lineup, 1, lineup.names)
    names = partitions(run)
    for name in names:
        reports = list(caption_partition(work, name, answers))
        assert len(reports) == partition_status(run, name, lineup).views
    assert sorted(run.files("captions")) == [run.path("captions", f"{name}.parquet") for name in names]


def test_a_resumed_job_leaves_one_file_per_partition(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())
    names = partitions(run)

    def work_in(epoch: int, blocks: int | None = None, stage: str | None = None) -> None:
        work = CaptionWork(replace(run, fence=Fence(epoch, {})), lineup, 1, lineup.names, stage)
        for name in names:
            reports = caption_partition(work, name, answers)
            for _ in reports if blocks is None else range(blocks):
                next(reports, None)

    work_in(1, blocks=2)  # killed after two blocks of each partition
    calls = dict(answers.calls)
    assert calls
    work_in(2)
    assert [run.stem(path) for path in sorted(run.files("captions"))] == names
    assert len(run.listed(run.path("captions"))) == len(names)
    assert all(read_completion(run, name, lineup) is not None for name in names)
    # Nothing was asked twice: without the first job it would have been as many calls.
    assert sum(answers.calls.values()) == sum(_calls_of(world, tmp_path / "other").values())
    work_in(3)
    assert {path.rpartition("-")[2] for path in run.files("captions")} <= {"e00000002.parquet", "e00000003.parquet"}
    assert len(run.listed(run.path("captions"))) == len(names)


def test_answers_of_a_stage_are_merged_across_jobs(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())
    assert lineup.captioner is not None
    captioner = lineup.captioner.name
    name = run.partition(run.files("views")[0])
    for epoch, blocks in ((1, 1), (2, None)):
        work = CaptionWork(replace(run, fence=Fence(epoch, {})), lineup, 1, lineup.names, captioner)
        reports = caption_partition(work, name, answers)
        for _ in reports if blocks is None else range(blocks):
            next(reports, None)
    folder = lineup.captioner.answers
    assert [path.rpartition("/")[2] for path in run.files(folder)] == [f"{name}-e00000002.parquet"]


def test_a_damaged_file_of_answers_is_kept_apart_and_the_others_are_merged(
    world: Path, tmp_path: Path, answers: KeyedAnswers
) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption_here(run, profile(), answers)
    lineup = resolve(profile())
    name = partitions(run)[0]
    folder = lineup.roles[0].answers
    (whole,) = run.files(folder, name)
    half = run.read_file(whole).slice(0, 1)
    run.write(folder, f"{name}-0123456789abcdef", half, schema=half.schema)
    damaged = Path(run.path(folder, f"{name}-fedcba9876543210.parquet"))
    damaged.write_bytes(b"PAR1 and no more")
    (files,) = Partitions(run, lineup).files([name])
    listed = run.with_file_listing(files)
    assert len(listed.files(folder, name)) == 3
    assert merge_partition(listed, name, lineup) == 0
    assert run.files(folder, name) == [run.path(folder, f"{name}.parquet")]
    assert [path.read_bytes() for path in Path(run.path("damaged")).rglob("*.parquet")] == [b"PAR1 and no more"]


def _calls_of(world: Path, folder: Path) -> dict[str, int]:
    run, ask = fresh_run(world, folder), KeyedAnswers()
    lineup = resolve(profile())
    for name in partitions(run):
        list(caption_partition(CaptionWork(run, lineup, 1, lineup.names), name, ask))
    return ask.calls
