"""The ledger: which known answers are used, also of damaged files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from caslie_ray.captioning._completion_marker import read_completion
from caslie_ray.captioning._ledger import load_ledger
from caslie_ray.captioning._merge import merge_partition
from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.errors import RunError
from caslie_ray.roles import resolve
from caslie_ray.storage.run import Run
from tests.captioning.fakes import KeyedAnswers, RefusingStore, drop_answers, rewritten
from tests.worlds import VOTERS, caption_here, fresh_run, profile, rows, voter


@pytest.mark.parametrize("other", [["votes.schedule=early"], ["votes.rule=always"], ["votes.rule=never"]])
def test_votes_are_reused_under_another_rule_or_schedule(
    world: Path, tmp_path: Path, answers: KeyedAnswers, other: list[str]
) -> None:
    run = fresh_run(world, tmp_path / "run")
    full = profile(settings=["votes.schedule=full"])
    caption_here(run, full, answers)
    before = rows(run)
    assert caption_here(run, profile(settings=other), answers) == {}
    assert rows(run) != before
    assert caption_here(run, full, answers) == {}
    assert rows(run) == before


def test_a_voter_that_returns_to_the_lineup_is_not_asked_again(
    world: Path, tmp_path: Path, answers: KeyedAnswers
) -> None:
    run = fresh_run(world, tmp_path / "run")
    first = profile(*map(voter, VOTERS[:3]), settings=["votes.schedule=full"])
    caption_here(run, first, answers)
    before = rows(run)
    calls = caption_here(run, profile(*map(voter, VOTERS[1:4]), settings=["votes.schedule=full"]), answers)
    assert calls == {VOTERS[3]: len(before)}
    assert caption_here(run, first, answers) == {}
    assert rows(run) == before


def test_readable_answers_of_a_damaged_file_are_used(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run, lineup = fresh_run(world, tmp_path / "run"), resolve(profile())
    caption_here(run, profile(), answers)
    drop_answers(run)
    before = rows(run)
    path = max(run.files("captions"), key=run.count_rows)
    views = run.read_file(path, ["caption", "votes"]).to_pylist()
    name, intact = run.partition(path), Path(path).read_bytes()

    rewritten(path, calls=pa.array(["many"] * len(views)))
    damaged = Path(path).read_bytes()
    assert read_completion(run, name, lineup) is None
    assert partition_status(run, name, lineup).missing == len(views)
    assert caption_here(run, profile(), answers) == {}
    assert rows(run) == before
    (copy,) = Path(run.path("damaged/captions")).iterdir()
    assert copy.read_bytes() == damaged
    assert partition_status(run, name, lineup).missing == 0

    drop_answers(run)
    Path(path).write_bytes(intact)
    rewritten(path, caption=pa.array([{"text": row["caption"]} for row in views]))
    # Votes are looked up by the caption, so they are asked again too.
    assert caption_here(run, profile(), answers)["captioner"] == len({row["caption"] for row in views})
    assert rows(run) == before

    drop_answers(run)
    Path(path).write_bytes(intact)
    rewritten(path, votes=pa.array(["lost"] * len(views)))
    calls = caption_here(run, profile(), answers)
    assert "captioner" not in calls
    assert rows(run) == before


def test_a_failure_in_a_damaged_file_is_retried(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run, lineup = fresh_run(world, tmp_path / "run"), resolve(profile())
    caption_here(run, profile(), answers)
    drop_answers(run)
    path = max(run.files("captions"), key=run.count_rows)
    table = run.read_file(path)
    damaged_rows = table.to_pylist()
    uses = Counter(row["caption_key"] for row in damaged_rows)
    at = next(at for at, row in enumerate(damaged_rows) if uses[row["caption_key"]] == 1)
    key = damaged_rows[at]["caption_key"]
    damaged_rows[at] |= {"caption": None, "votes": [], "verdict": False, "error": "poison", "retryable": False}
    run.write("captions", run.partition(path), pa.Table.from_pylist(damaged_rows, schema=table.schema))
    rewritten(path, calls=pa.array(["many"] * len(damaged_rows)))
    assert key not in load_ledger(run, run.partition(path), lineup).known.captions
    assert caption_here(run, profile(), answers)["captioner"] == 1
    assert all(row["error"] is None for row in rows(run))


def test_a_store_error_does_not_make_a_file_damaged(world: Path, tmp_path: Path, answers: KeyedAnswers) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption_here(run, profile(), answers)
    path = run.files("captions")[0]
    lineup, name = resolve(profile()), run.partition(path)

    store = RefusingStore(skip_instance_cache=True)
    refused = Run(pafs.PyFileSystem(pafs.FSSpecHandler(store)), run.root, run.uri)
    store.refused = path
    with pytest.raises(RunError, match="slow down"):
        merge_partition(refused, name, lineup)
    store.refused = ""
    assert load_ledger(refused, name, lineup).damaged == []
    Path(path).write_bytes(b"PAR1 and no more")
    assert load_ledger(refused, name, lineup).damaged == [path]
