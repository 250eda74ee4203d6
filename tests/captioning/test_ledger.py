"""What a run remembers: answers that no row holds any more, rows that no longer hold, stores that fail."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]  # it has none

from caslie_ray.captioning._caption_work import CaptionWork, caption_partition
from caslie_ray.captioning._completion_marker import read_completion
from caslie_ray.captioning._counts import count_partition, kind_of_error
from caslie_ray.captioning._ledger import load_ledger
from caslie_ray.captioning._merge import merge_rows
from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.captioning._table_files import read_images
from caslie_ray.engines import Choice, Failure, Generation
from caslie_ray.errors import RunError
from caslie_ray.roles import resolve
from caslie_ray.storage.lease_files import Fence
from caslie_ray.storage.run import Run, open_run
from tests.worlds import VOTERS, caption_here, edit_views, fresh_run, profile, rows, voter


class Told:
    """Answers from the request alone: a caption is the key, a vote its first digit."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def generate(self, role: Any, requests: Any) -> list[Generation]:
        self.calls[role.name] = self.calls.get(role.name, 0) + len(requests)
        return [Generation(request.key, f"caption {request.key}", 5, 3, False) for request in requests]

    def choose(self, role: Any, requests: Any, choices: Any) -> list[Choice]:
        self.calls[role.name] = self.calls.get(role.name, 0) + len(requests)
        share = [int(request.key[0], 16) / 15 for request in requests]
        return [Choice(one.key, (p, 1 - p), 5, False) for one, p in zip(requests, share, strict=True)]


class Refusing(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store that lists a file and does not give it."""

    refused = ""

    def _open(self, path: str, *options: Any, **more: Any) -> Any:
        if path == self.refused:
            raise OSError("slow down")
        return super()._open(path, *options, **more)


class Counting(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store that counts the bytes that are read and the folders that are listed."""

    read = 0
    listed = 0

    def _open(self, path: str, *options: Any, **more: Any) -> Any:
        file = super()._open(path, *options, **more)
        plain = file.read

        def read(*size: int) -> bytes:
            data: bytes = plain(*size)
            self.read += len(data)
            return data

        file.read = read
        return file

    def find(self, *options: Any, **more: Any) -> Any:
        self.listed += 1
        return super().find(*options, **more)


@pytest.fixture
def told() -> Any:
    return Told()


@pytest.mark.parametrize("other", [["votes.schedule=early"], ["votes.rule=always"], ["votes.rule=never"]])
def test_votes_that_were_paid_for_are_not_asked_again(world: Path, tmp_path: Path, told: Any, other: list[str]) -> None:
    run = fresh_run(world, tmp_path / "run")
    full = profile(settings=["votes.schedule=full"])
    caption_here(run, full, told)
    before = rows(run)
    assert caption_here(run, profile(settings=other), told) == {}
    assert rows(run) != before
    assert caption_here(run, full, told) == {}
    assert rows(run) == before


def test_a_voter_that_comes_back_is_not_asked_again(world: Path, tmp_path: Path, told: Any) -> None:
    run = fresh_run(world, tmp_path / "run")
    first = profile(*map(voter, VOTERS[:3]), settings=["votes.schedule=full"])
    caption_here(run, first, told)
    before = rows(run)
    calls = caption_here(run, profile(*map(voter, VOTERS[1:4]), settings=["votes.schedule=full"]), told)
    assert calls == {VOTERS[3]: len(before)}
    assert caption_here(run, first, told) == {}
    assert rows(run) == before


def test_a_row_that_no_longer_holds_is_work_that_is_left(world: Path, tmp_path: Path, told: Any) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption_here(run, profile(*map(voter, VOTERS[:3])), told)
    changed = resolve(profile(*map(voter, VOTERS[1:4])))
    names = sorted({run.partition(path) for path in run.files("views")})
    before = rows(run)
    waiting = sum(merge_rows(run, name, changed) for name in names)
    assert waiting == sum(partition_status(run, name, changed).waits.total() for name in names) > 0
    assert len(rows(run)) == len(before)


def test_answers_of_a_stage_are_brought_into_one_file(world: Path, tmp_path: Path, told: Any) -> None:
    streamed, run = fresh_run(world, tmp_path / "streamed"), fresh_run(world, tmp_path / "staged")
    calls = caption_here(streamed, profile(), told)
    told.calls = {}
    lineup = resolve(profile())
    names = sorted({run.partition(path) for path in run.files("views")})
    for role in lineup.roles:
        work = CaptionWork(run, lineup, 1, frozenset({role.name}), role.name)
        for name in names:
            blocks, answers = 0, 0
            for report in caption_partition(work, name, told):
                blocks, answers = blocks + 1, answers + report["views"]
                last = run.files(role.answers, name)
            assert len(last) == min(blocks, answers) or not blocks
        written = run.files(role.answers)
        assert len(written) == len({run.partition(path) for path in written})
    assert [merge_rows(run, name, lineup) for name in names] == [0] * len(names)
    assert rows(run) == rows(streamed)
    assert told.calls == calls


def rewritten(path: str, **columns: pa.Array) -> None:
    """Rewrite columns of a file by another tool, which keeps what its footer notes."""
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, path)


def test_of_a_damaged_file_the_answers_that_can_be_read_are_used(world: Path, tmp_path: Path, told: Any) -> None:
    run, lineup = fresh_run(world, tmp_path / "run"), resolve(profile())
    caption_here(run, profile(), told)
    before = rows(run)
    path = max(run.files("captions"), key=run.count_rows)
    views = run.read_file(path, ["caption", "votes"]).to_pylist()
    name, whole = run.partition(path), Path(path).read_bytes()

    rewritten(path, calls=pa.array(["many"] * len(views)))
    damaged = Path(path).read_bytes()
    assert read_completion(run, name, lineup) is None
    assert partition_status(run, name, lineup).missing == len(views)
    assert caption_here(run, profile(), told) == {}
    assert rows(run) == before
    (copy,) = Path(run.path("damaged/captions")).iterdir()
    assert copy.read_bytes() == damaged
    assert partition_status(run, name, lineup).missing == 0

    Path(path).write_bytes(whole)
    rewritten(path, caption=pa.array([{"text": row["caption"]} for row in views]))
    assert caption_here(run, profile(), told) == {"captioner": len({row["caption"] for row in views})}
    assert rows(run) == before

    Path(path).write_bytes(whole)
    rewritten(path, votes=pa.array(["lost"] * len(views)))
    calls = caption_here(run, profile(), told)
    assert "captioner" not in calls
    assert rows(run) == before


def test_a_failure_in_a_damaged_file_is_asked_again(world: Path, tmp_path: Path, told: Any) -> None:
    run, lineup = fresh_run(world, tmp_path / "run"), resolve(profile())
    caption_here(run, profile(), told)
    path = max(run.files("captions"), key=run.count_rows)
    table = run.read_file(path)
    found = table.to_pylist()
    uses = Counter(row["caption_key"] for row in found)
    at = next(at for at, row in enumerate(found) if uses[row["caption_key"]] == 1)
    key = found[at]["caption_key"]
    found[at] |= {"caption": None, "votes": [], "verdict": False, "error": "poison", "retryable": False}
    run.write("captions", run.partition(path), pa.Table.from_pylist(found, schema=table.schema))
    rewritten(path, calls=pa.array(["many"] * len(found)))
    assert key not in load_ledger(run, run.partition(path), lineup).known.captions
    assert caption_here(run, profile(), told)["captioner"] == 1
    assert all(row["error"] is None for row in rows(run))


def test_only_bytes_that_are_not_whole_count_as_broken(world: Path, tmp_path: Path, told: Any) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption_here(run, profile(), told)
    path = run.files("captions")[0]
    lineup, name = resolve(profile()), run.partition(path)

    store = Refusing(skip_instance_cache=True)
    refused = Run(pafs.PyFileSystem(pafs.FSSpecHandler(store)), run.root, run.uri)
    store.refused = path
    with pytest.raises(RunError, match="slow down"):
        merge_rows(refused, name, lineup)
    store.refused = ""
    assert load_ledger(refused, name, lineup).damaged == []
    Path(path).write_bytes(b"PAR1 and no more")
    assert load_ledger(refused, name, lineup).damaged == [path]


def test_a_block_reads_its_own_pictures(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    found = [{"image_id": f"0{n:04d}", "image": random.randbytes(5000), "width": 1, "height": 1} for n in range(1000)]
    path = run.write("images", "0", pa.Table.from_pylist(found))
    store = Counting(skip_instance_cache=True)
    counted = Run(pafs.PyFileSystem(pafs.FSSpecHandler(store)), run.root, run.uri)
    ids = [str(row["image_id"]) for row in found[500:510]] + ["0zzzz"]
    assert set(read_images(counted, "0", ids[:10])) == set(ids[:10])
    assert store.read < Path(path).stat().st_size / 4
    assert set(read_images(run, "0", ids)) == set(ids[:10])


def test_a_partition_whose_files_are_known_is_not_listed(world: Path, tmp_path: Path, told: Any) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption_here(run, profile(), told)
    lineup = resolve(profile())
    name = run.partition(run.files("views")[0])
    tables = ["views", "images", "captions", "answers/kept", *(role.answers for role in lineup.roles)]
    files = {table: run.by_partition(table).get(name, []) for table in tables}
    store = Counting(skip_instance_cache=True)
    counted = Run(pafs.PyFileSystem(pafs.FSSpecHandler(store)), run.root, run.uri)
    assert partition_status(counted.with_file_listing(files), name, lineup) == partition_status(run, name, lineup)
    assert store.listed == 0
    partition_status(counted, name, lineup)
    assert store.listed > 0


def test_errors_are_counted_by_their_kind() -> None:
    image = "image 00ff00ff00ff00ff00ff00ff00ff00ff is not in the run's images table; run ingest again"
    assert kind_of_error(image) == "image … is not in the run's images table; run ingest again"
    assert kind_of_error("no quorum: 2 valid votes of 5 voters (phi: cut)") == "no quorum: # valid votes of # voters"
    assert kind_of_error("llama-3.2-1b wrote an empty caption") == "llama-3.2-1b wrote an empty caption"


def captioned_and_settled(world: Path, path: Path, told: Any) -> tuple[Run, list[str]]:
    run = fresh_run(world, path)
    caption_here(run, profile(), told)
    return run, sorted({run.partition(file) for file in run.files("views")})


def test_a_finished_partition_is_surveyed_by_its_footer(world: Path, tmp_path: Path, told: Any) -> None:
    run, names = captioned_and_settled(world, tmp_path / "run", told)
    lineup = resolve(profile())
    for name in names:
        counts = read_completion(run, name, lineup)
        assert counts is not None
        assert counts == count_partition(run, name, lineup)
        fast = partition_status(run, name, lineup)
        for path in run.files("captions", name):  # what is written without a note has to be read
            run.write("captions", name, run.read_file(path))
        assert read_completion(run, name, lineup) is None
        assert partition_status(run, name, lineup) == fast


def test_a_note_holds_for_its_lineup_and_its_views_alone(world: Path, tmp_path: Path, told: Any) -> None:
    run, names = captioned_and_settled(world, tmp_path / "run", told)
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


def test_a_partition_with_rows_to_be_asked_again_is_not_settled(world: Path, tmp_path: Path, told: Any) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())

    class Failing(Told):
        def choose(self, role: Any, requests: Any, choices: Any) -> list[Choice]:
            failure = Failure("phi is down", retryable=True)
            return [Choice(request.key, (), 0, False, failure) for request in requests]

    caption_here(run, profile(), cast(Any, Failing()))
    names = sorted({run.partition(path) for path in run.files("views")})
    assert [read_completion(run, name, lineup) for name in names] == [None] * len(names)
    again = [partition_status(run, name, lineup, lineup.names) for name in names]
    assert sum(state.missing for state in again) == len(rows(run))


def test_a_run_is_left_with_a_file_a_partition_however_small_its_blocks(world: Path, tmp_path: Path, told: Any) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())
    work = CaptionWork(run, lineup, 1, lineup.names)
    names = sorted({run.partition(path) for path in run.files("views")})
    for name in names:
        reports = list(caption_partition(work, name, told))
        assert len(reports) == partition_status(run, name, lineup).views
    assert sorted(run.files("captions")) == [run.path("captions", f"{name}.parquet") for name in names]


def test_a_job_after_another_leaves_one_file_a_partition(world: Path, tmp_path: Path, told: Any) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())
    names = sorted({run.partition(path) for path in run.files("views")})

    def work_in(epoch: int, blocks: int | None = None, stage: str | None = None) -> None:
        work = CaptionWork(replace(run, fence=Fence(epoch, {})), lineup, 1, lineup.names, stage)
        for name in names:
            reports = caption_partition(work, name, told)
            for _ in reports if blocks is None else range(blocks):
                next(reports, None)

    work_in(1, blocks=2)  # killed after two blocks of each partition
    calls = dict(told.calls)
    assert calls
    work_in(2)
    assert [run.stem(path) for path in sorted(run.files("captions"))] == names
    assert len(run.listed(run.path("captions"))) == len(names)
    assert all(read_completion(run, name, lineup) is not None for name in names)
    # Nothing was asked twice: without the first job it would have been as many calls.
    assert sum(told.calls.values()) == sum(_calls_of(world, tmp_path / "other").values())
    work_in(3)
    assert {path.rpartition("-")[2] for path in run.files("captions")} <= {"e00000002.parquet", "e00000003.parquet"}
    assert len(run.listed(run.path("captions"))) == len(names)


def test_answers_of_a_stage_are_brought_together_across_jobs(world: Path, tmp_path: Path, told: Any) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(profile())
    assert lineup.captioner is not None
    captioner = lineup.captioner.name
    name = run.partition(run.files("views")[0])
    for epoch, blocks in ((1, 1), (2, None)):
        work = CaptionWork(replace(run, fence=Fence(epoch, {})), lineup, 1, lineup.names, captioner)
        reports = caption_partition(work, name, told)
        for _ in reports if blocks is None else range(blocks):
            next(reports, None)
    folder = lineup.captioner.answers
    assert [path.rpartition("/")[2] for path in run.files(folder)] == [f"{name}-e00000002.parquet"]


def _calls_of(world: Path, folder: Path) -> dict[str, int]:
    run, ask = fresh_run(world, folder), Told()
    lineup = resolve(profile())
    for name in sorted({run.partition(path) for path in run.files("views")}):
        list(caption_partition(CaptionWork(run, lineup, 1, lineup.names), name, ask))
    return ask.calls
