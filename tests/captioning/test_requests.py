"""Which requests are made: real models in this process, the ledger on disk, requests counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from caslie_ray.captioning import CaptionJob
from caslie_ray.captioning._counts import count_partition, merge_counts
from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.captioning._requests import CONTEXT_FREE
from caslie_ray.captioning._summary import table_summary
from caslie_ray.dataset import ingest
from caslie_ray.errors import RunError
from caslie_ray.profiles import ProfileError
from caslie_ray.roles import resolve
from caslie_ray.storage.run import Run, open_run
from tests.worlds import VOTERS, InProcess, caption_here, draw, edit_views, fresh_run, profile, rows, voter

ALL = [voter(name) for name in VOTERS]


@pytest.fixture(scope="module")
def captioned(world: Path, tmp_path_factory: pytest.TempPathFactory, ask: InProcess) -> Path:
    path = tmp_path_factory.mktemp("captioned") / "run"
    caption_here(fresh_run(world, path), profile(*ALL), ask)
    return path


def views_of(run: Run) -> set[str]:
    return set(run.read("views", ["view_id"])["view_id"].to_pylist())


def test_every_view_has_one_row(captioned: Path) -> None:
    run = open_run(str(captioned))
    ids = [row["view_id"] for path in run.files("captions") for row in run.read_file(path).to_pylist()]
    assert sorted(ids) == sorted(views_of(run))
    assert all(row["caption"] for row in rows(run))


def test_a_complete_run_makes_no_requests(captioned: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(captioned, tmp_path / "run")
    before = rows(run)
    assert caption_here(run, profile(*ALL), ask) == {}
    assert rows(run) == before


def test_early_exit_gives_the_verdicts_of_a_full_vote(captioned: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(captioned, tmp_path / "run")
    early = {row["view_id"]: row for row in rows(run)}
    votes = sum(len(row["votes"]) for row in early.values())
    calls = caption_here(run, profile(*ALL, settings=["votes.schedule=full"]), ask)
    full = {row["view_id"]: row for row in rows(run)}
    assert {key: row["verdict"] for key, row in full.items()} == {key: row["verdict"] for key, row in early.items()}
    assert all(len(row["votes"]) == 5 for row in full.values())
    assert votes < 5 * len(full), "early exit saved no call"
    assert "captioner" not in calls
    assert sum(calls.values()) == 5 * len(full) - votes


def test_all_voters_vote_on_the_audit_sample(world: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(world, tmp_path / "run")
    chosen = profile(*ALL, settings=["votes.audit=0.5"])
    caption_here(run, chosen, ask)
    lineup = resolve(chosen)
    audited = {row["view_id"] for row in rows(run) if lineup.asks_all(row["view_id"])}
    assert 0 < len(audited) < len(rows(run))
    for row in rows(run):
        assert len(row["votes"]) == 5 if row["view_id"] in audited else len(row["votes"]) >= 3
    counted = [count_partition(run, name, lineup) for name in {run.partition(p) for p in run.files("views")}]
    assert sum(part.full.total() for part in counted) == len(audited)
    assert table_summary(merge_counts(counted))["all_voted"] == len(audited)


def test_early_exit_with_failing_voters(captioned: Path, tmp_path: Path, ask: InProcess) -> None:
    # The context is so short that longer prompts cannot be cut to fit: those votes fail, not retryable.
    short = voter("mistral", context=100, batch_tokens=200, max_new_tokens=8)
    lineup = [*ALL[:3], short, ALL[4]]
    run = fresh_run(captioned, tmp_path / "run")
    caption_here(run, profile(*lineup), ask)
    early = {row["view_id"]: (row["verdict"], row["error"] is None) for row in rows(run)}
    failed = [vote for row in rows(run) for vote in row["votes"] if vote["error"]]
    assert failed
    assert all(vote["answer"] is None and vote["p_yes"] is None for vote in failed)
    caption_here(run, profile(*lineup, settings=["votes.schedule=full"]), ask)
    assert {row["view_id"]: (row["verdict"], row["error"] is None) for row in rows(run)} == early


def test_too_few_valid_votes_are_an_error_row(captioned: Path, tmp_path: Path, ask: InProcess) -> None:
    tiny = {"context": 16, "batch_tokens": 64, "max_new_tokens": 8}
    lineup = [*ALL[:2], *(voter(name, **tiny) for name in VOTERS[2:])]
    run = fresh_run(captioned, tmp_path / "run")
    caption_here(run, profile(*lineup), ask)
    for row in rows(run):
        assert row["verdict"] is False
        assert "no quorum: 2 valid votes of 5" in row["error"]
        assert row["caption"]


def test_only_a_changed_voter_is_asked(captioned: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(captioned, tmp_path / "run")
    before = {row["view_id"]: row for row in rows(run)}
    order = [role.name for role in resolve(profile(*ALL)).voters]
    changed = order[1]
    lineup = [voter(name, context=1000) if name == changed else voter(name) for name in VOTERS]
    calls = caption_here(run, profile(*lineup), ask)
    asked = sum(any(vote["voter"] == changed for vote in row["votes"]) for row in before.values())
    assert calls.pop(changed) == asked
    # The weights are the same, so the votes are too, and no other voter was needed.
    assert calls == {}
    assert {row["view_id"]: row["verdict"] for row in rows(run)} == {k: r["verdict"] for k, r in before.items()}


def test_a_changed_caption_prompt_requests_that_view_only(captioned: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(captioned, tmp_path / "run")
    first = rows(run, "views")[0]["view_id"]

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["view_id"] != first:
            return None
        return {**row, "view_id": "f" * 32, "caption_prompt": row["caption_prompt"] + " Name the colour."}

    edit_views(run, change)
    calls = caption_here(run, profile(*ALL), ask)
    assert calls.pop("captioner") == 1
    assert all(count == 1 for count in calls.values())
    view_ids = {row["view_id"] for row in rows(run)}
    assert "f" * 32 in view_ids
    assert first not in view_ids, "the row of a removed view is still there"


def test_new_options_request_votes_and_no_caption(captioned: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(captioned, tmp_path / "run")

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["task"] != "category_classification":
            return None
        quality = row["quality_prompt"].replace("from the options: ", "from the options: something else, ")
        assert quality != row["quality_prompt"]
        return {**row, "view_id": row["view_id"][:31] + "x", "quality_prompt": quality, "quality_fields": []}

    changed = edit_views(run, change)
    calls = caption_here(run, profile(*ALL), ask)
    assert changed
    assert "captioner" not in calls
    assert max(calls.values()) == len(changed)


def test_ten_new_products_cost_only_their_own_calls(
    captioned: Path, world: Path, tmp_path: Path, ask: InProcess
) -> None:
    run = fresh_run(captioned, tmp_path / "run")
    old = views_of(run)
    source = world.parent / "source" / "dataset.json"
    more = draw(tmp_path / "more", seed=1)
    records = [record for record in json.loads(more.read_text()) if "category" in record["task"]]
    extra = [{**record, "images": [str(more.parent / json.loads(record["images"])[0])]} for record in records][:10]
    (tmp_path / "extra.json").write_text(json.dumps(extra))
    ingest(run, [str(source), str(tmp_path / "extra.json")], profile())
    new = views_of(run) - old
    assert old < views_of(run)
    assert 0 < len(new) <= 10
    calls = caption_here(run, profile(*ALL), ask)
    assert calls["captioner"] == len(new)
    assert max(calls.values()) == len(new)


def test_use_it_always_asks_no_voter(world: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(world, tmp_path / "run")
    calls = caption_here(run, profile(settings=["votes.rule=always"]), ask)
    assert set(calls) == {"captioner"}
    assert all(row["verdict"] and not row["votes"] and row["calls"] == 1 for row in rows(run))


def test_text_only_makes_no_requests(world: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(world, tmp_path / "run")
    assert caption_here(run, profile(settings=["votes.rule=never"]), ask) == {}
    assert len(rows(run)) == len(views_of(run))
    assert not any(row["verdict"] or row["caption"] or row["error"] for row in rows(run))


def test_captions_from_the_data_set(world: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(world, tmp_path / "run")
    first = rows(run, "views")[0]["view_id"]
    edit_views(run, lambda row: {**row, "given_caption": None} if row["view_id"] == first else None)
    calls = caption_here(run, profile(settings=["captions.source=dataset"]), ask)
    assert "captioner" not in calls
    given = {row["view_id"]: row["given_caption"] for row in rows(run, "views")}
    for row in rows(run):
        assert row["caption"] == given[row["view_id"]]
        assert row["calls"] == len(row["votes"])
    assert "caption_info" in next(row for row in rows(run) if row["view_id"] == first)["error"]


def test_there_is_one_context_free_caption_per_image(world: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(world, tmp_path / "run")
    calls = caption_here(run, profile(settings=["captions.context=free", "votes.rule=always"]), ask)
    by_image: dict[str, set[str]] = {}
    for row in rows(run):
        by_image.setdefault(row["image_id"], set()).add(row["caption"])
    assert calls["captioner"] == len(by_image)
    assert all(len(captions) == 1 for captions in by_image.values())
    assert "{{" not in CONTEXT_FREE.text


def test_a_missing_image_is_a_retryable_error_row(world: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(world, tmp_path / "run")
    path = run.files("images")[0]
    images = run.read_file(path)
    lost = images["image_id"][0].as_py()
    run.write("images", run.partition(path), images.slice(1))
    caption_here(run, profile(), ask)
    broken = [row for row in rows(run) if row["image_id"] == lost]
    assert broken
    assert all("run ingest again" in row["error"] and row["retryable"] and not row["verdict"] for row in broken)
    assert all(row["error"] is None for row in rows(run) if row["image_id"] != lost)
    run.write("images", run.partition(path), images)
    calls = caption_here(run, profile(), ask)
    assert calls["captioner"] == len(broken)
    assert all(row["error"] is None for row in rows(run))


def test_a_prompt_of_a_million_characters_is_cut_and_flagged(world: Path, tmp_path: Path, ask: InProcess) -> None:
    run = fresh_run(world, tmp_path / "run")
    review = "lovely thing " * 80_000

    def change(row: dict[str, Any]) -> dict[str, Any] | None:
        if row["task"] != "sentiment_analysis":
            return None
        start, end = row["caption_fields"][0]
        text = row["caption_prompt"][:start] + review + row["caption_prompt"][end:]
        return {**row, "caption_prompt": text, "caption_fields": [[start, start + len(review)]]}

    changed = set(edit_views(run, change))
    assert changed
    caption_here(run, profile(settings=["votes.rule=always"]), ask)
    for row in rows(run):
        assert row["error"] is None
        assert row["cut"] == (row["view_id"] in changed)


def test_other_partition_digits_than_those_of_the_captions_are_refused(
    captioned: Path, world: Path, tmp_path: Path
) -> None:
    run = fresh_run(captioned, tmp_path / "run")
    finer = profile(*ALL, settings=["storage.partition_digits=2"])
    ingest(run, [str(world.parent / "source" / "dataset.json")], finer)
    with pytest.raises(RunError, match=r"set storage\.partition_digits=1"):
        CaptionJob(run, finer)


def test_two_voters_with_the_same_fingerprint_are_refused() -> None:
    twins = [voter("llama-3b"), {**voter("llama-3b"), "name": "again"}, voter("phi")]
    with pytest.raises(ProfileError, match="llama-3b and again have one fingerprint"):
        resolve(profile(*twins))


def test_nothing_is_missing_in_a_complete_run(captioned: Path) -> None:
    run = open_run(str(captioned))
    lineup = resolve(profile(*ALL))
    names = sorted({run.partition(path) for path in run.files("views")})
    states = [partition_status(run, name, lineup) for name in names]
    assert sum(state.done for state in states) == len(views_of(run))
    assert not any(state.missing or state.waits for state in states)
    assert all(state.merged for state in states)
