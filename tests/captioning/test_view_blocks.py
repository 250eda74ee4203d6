"""Blocks of views: how they are cut, what they carry, and what a recomputed one asks again. No Ray, no model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from caslie_ray.captioning._caption_work import CaptionWork
from caslie_ray.captioning._known_answers import KnownAnswers
from caslie_ray.captioning._ledger import load_ledger
from caslie_ray.captioning._requests import caption_key, vote_key
from caslie_ray.captioning._rows import CaptionAnswer, View, VoteAnswer, read_views
from caslie_ray.captioning._view_blocks import cut_blocks, make_block, open_block
from caslie_ray.captioning._voting import advance
from caslie_ray.pipeline.blocks import pack, unpack
from caslie_ray.prompts import Prompt
from caslie_ray.roles import ResolvedLineup, resolve
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from tests.captioning.fakes import KeyedAnswers
from tests.worlds import profile

PARTITION = "3f"


def view(image: str, prompt: str, number: int) -> View:
    text = f"Question {prompt}: is {{{{caption}}}} useful?"
    return View(f"{image}-{number:04}", image, "task", Prompt(f"Describe {prompt}."), Prompt(text), None)


@pytest.fixture(scope="module")
def lineup() -> ResolvedLineup:
    return resolve(profile(settings=["votes.schedule=full"]))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with one hot image and others, without captions."""
    one = open_run(str(tmp_path / "run"))
    views = [view("hot", f"prompt {n}", n) for n in range(20)] + [view(f"i{n}", "alike", n) for n in range(5)]
    columns = [
        {
            "view_id": each.view_id, "image_id": each.image_id, "task": each.task,
            "caption_prompt": each.caption_prompt.text, "quality_prompt": each.quality_prompt.text,
        }
        for each in views
    ]  # fmt: skip
    one.write("views", PARTITION, pa.Table.from_pylist(columns, schema=SCHEMAS["views"]))
    images = [{"image_id": name, "image": name.encode() * 10} for name in sorted({each.image_id for each in views})]
    one.write("images", PARTITION, pa.Table.from_pylist(images, schema=SCHEMAS["images"]))
    return one


def ids(blocks: Sequence[Sequence[View]]) -> list[list[str]]:
    return [[each.view_id for each in block] for block in blocks]


# Cutting.


@pytest.mark.parametrize(("count", "rows"), [(0, 8), (1, 8), (8, 8), (9, 8), (100, 7)])
def test_every_view_is_in_one_block(count: int, rows: int) -> None:
    views = [view(f"i{n:03}", "p", n) for n in range(count)]
    blocks = list(cut_blocks(views, rows))
    assert [each for block in blocks for each in block] == views
    assert all(len(block) == rows for block in blocks[:-1])


def test_views_that_share_a_caption_stay_together() -> None:
    views = [view("a", "p", 0), *(view("b", "p", n) for n in range(1, 5)), view("c", "p", 5)]
    assert ids(list(cut_blocks(views, 2))) == [
        ["a-0000", "b-0001", "b-0002", "b-0003"],
        ["b-0004", "c-0005"],
    ], "up to twice the size"
    assert ids(list(cut_blocks(views, 3))) == [["a-0000", *(f"b-{n:04}" for n in range(1, 5))], ["c-0005"]]


def test_another_prompt_for_the_same_image_is_another_caption() -> None:
    views = [view("hot", f"p{n}", n) for n in range(10)]
    assert [len(block) for block in cut_blocks(views, 4)] == [4, 4, 2]


def test_a_hot_image_with_one_prompt_is_spread_over_blocks() -> None:
    views = [view("hot", "p", n) for n in range(1000)]
    assert {len(block) for block in cut_blocks(views, 50)} == {100}


# Content.


def test_a_block_carries_views_images_and_answers(run: Run, lineup: ResolvedLineup) -> None:
    known, views = KnownAnswers(), read_views(run.read("views"))[:6]
    captioned, voted = views[1], views[2]
    for each in (captioned, voted):
        known.add(CaptionAnswer(caption_key(each, lineup), "a mug", 12, cut=True, truncated=False))
    # The second voter has answered under another lineup, the first one not yet.
    vote = VoteAnswer(vote_key(voted, "a mug", lineup.voters[1]), 0.25, 30, error=None)
    known.add(vote)
    rows = advance(views, lineup, known)
    block = make_block(PARTITION, rows, stored(run), {"hot": b"jpeg", "i0": b"png"}, known, lineup)
    again = unpack(pack(block))
    assert isinstance(again, pa.Table)
    opened = open_block(again)
    assert opened.views == views
    assert opened.partition == PARTITION
    assert opened.stem.startswith(f"{PARTITION}-")
    assert opened.known.captions == known.captions
    assert opened.known.votes == {vote.key: vote}
    assert advance(opened.views, lineup, opened.known) == rows


def test_a_failed_answer_remains_failed(run: Run, lineup: ResolvedLineup) -> None:
    known, views = KnownAnswers(), read_views(run.read("views"))[:1]
    known.add(CaptionAnswer(caption_key(views[0], lineup), None, error="poison: it ended", retryable=False))
    opened = open_block(make_block(PARTITION, advance(views, lineup, known), stored(run), {}, known, lineup))
    assert opened.known.captions == known.captions


def test_an_image_is_stored_once_per_block(run: Run, lineup: ResolvedLineup) -> None:
    views, known = read_views(run.read("views")), KnownAnswers()
    images = {each.image_id: each.image_id.encode() * 1000 for each in views}
    del images["i4"]
    block = make_block(PARTITION, advance(views, lineup, known), stored(run), images, known, lineup)
    assert len(block["image"].drop_null()) == len(images)
    assert block["image"].nbytes < 12_000
    opened = open_block(block)
    assert opened.images([*images, "i4", "unknown"]) == images
    assert opened.images(["i1"]) == {"i1": images["i1"]}


def test_images_are_dropped_when_no_longer_needed(run: Run, lineup: ResolvedLineup) -> None:
    answers, (first, *_) = KeyedAnswers(), blocks(work(run, lineup))
    assert lineup.captioner is not None
    captioned = work(run, lineup).answer(first, [lineup.captioner.name], answers)
    assert captioned["image"].null_count == captioned.num_rows
    assert captioned.schema == first.schema
    assert captioned.schema.metadata == first.schema.metadata


def test_the_same_views_have_the_same_stem_and_others_a_different_one(run: Run, lineup: ResolvedLineup) -> None:
    stems = [open_block(block).stem for block in blocks(work(run, lineup))]
    assert len(set(stems)) == len(stems)
    assert stems == [open_block(block).stem for block in blocks(work(run, lineup))]
    assert stems != [open_block(block).stem for block in blocks(replace(work(run, lineup), block_rows=4))]


# Blocks that are computed again.


def test_a_block_that_is_read_again_is_the_same_whatever_was_answered_since(run: Run, lineup: ResolvedLineup) -> None:
    """Ray repeats a generator and takes the blocks that it lacks by their number."""
    order = listed(work(run, lineup))
    reader = order.read(PARTITION)
    first = next(reader)
    answer_all(order, first, KeyedAnswers())
    rest = list(reader)
    assert rest
    for before, after in zip([first, *rest], order.read(PARTITION), strict=True):
        assert after.equals(before, check_metadata=True)


@pytest.mark.parametrize("lost_after", [1, 2, 4])
def test_a_recomputed_block_asks_nothing_again(run: Run, lineup: ResolvedLineup, lost_after: int) -> None:
    order, once, again = listed(work(run, lineup)), KeyedAnswers(), KeyedAnswers()
    first, *_ = blocks(order)
    whole = answer_all(order, first, once)
    assert set(once.calls) == lineup.names
    for path in files_of(run, lineup, lineup.roles[lost_after:]):
        os.unlink(path)
    repeated = answer_all(order, first, again)
    assert repeated.equals(whole)
    assert set(again.calls) == {role.name for role in lineup.roles[lost_after:]}
    assert len(files_of(run, lineup, lineup.roles)) == len(lineup.roles), "a file per block and model"


def test_only_the_missing_answers_of_a_recomputed_block_are_requested(run: Run, lineup: ResolvedLineup) -> None:
    order, again = listed(work(run, lineup)), KeyedAnswers()
    first, *_ = blocks(order)
    whole = answer_all(order, first, KeyedAnswers())
    voter = lineup.voters[0]
    (path,) = files_of(run, lineup, [voter])
    kept = run.read_file(path)
    run.write(voter.answers, run.stem(path), kept.slice(2), schema=kept.schema)
    assert answer_all(order, first, again).equals(whole)
    assert again.calls == {voter.name: 2}
    assert run.read_file(path).num_rows == kept.num_rows


def test_a_damaged_answer_file_is_asked_again(run: Run, lineup: ResolvedLineup) -> None:
    order, again = listed(work(run, lineup)), KeyedAnswers()
    first, *_ = blocks(order)
    whole = answer_all(order, first, KeyedAnswers())
    (path,) = files_of(run, lineup, [lineup.voters[1]])
    Path(path).write_bytes(b"half")
    assert answer_all(order, first, again).equals(whole)
    assert set(again.calls) == {lineup.voters[1].name}


def test_rows_that_are_written_twice_are_one_file(run: Run, lineup: ResolvedLineup) -> None:
    order = listed(work(run, lineup))
    first, *_ = blocks(order)
    answered = answer_all(order, first, KeyedAnswers())
    counts = order.write(answered)
    assert counts == order.write(answered)
    assert (counts["views"], counts["errors"]) == (first.num_rows, 0)
    assert len(run.files("captions")) == 1
    assert run.read("captions").num_rows == first.num_rows


# Models that cannot be started.


@pytest.mark.parametrize("staged", [False, True])
def test_answers_of_a_model_that_is_absent_are_failures_on_disk(run: Run, lineup: ResolvedLineup, staged: bool) -> None:
    absent = lineup.voters[-1]
    order, answers = work(run, lineup), KeyedAnswers()
    if staged:
        for role in lineup.roles[:-1]:
            stage = replace(order, stage=role.name)
            for block in blocks(stage):
                stage.answer(block, [role.name], answers)
        order = replace(order, stage=absent.name)
    order = replace(order, absent={absent.name: "phi cannot be started"})
    names = [role.name for role in lineup.roles if role is not absent]
    counts = [order.write(block if staged else order.answer(block, names, answers)) for block in blocks(order)]
    assert absent.name not in answers.calls
    assert sum(count["views"] for count in counts) == 25
    rows = advance(read_views(run.read("views")), lineup, load_ledger(run, PARTITION, lineup).known)
    assert all(row.waits_for is None for row in rows)
    failed = [answer for row in rows for name, answer in row.votes if name == absent.name]
    assert {(answer.error, answer.retryable) for answer in failed} == {("phi cannot be started", True)}


def stored(run: Run) -> dict[str, dict[str, Any]]:
    return {row["view_id"]: row for row in run.read("views").to_pylist()}


def work(run: Run, lineup: ResolvedLineup) -> CaptionWork:
    return CaptionWork(run, lineup, 8, frozenset())


def listed(order: CaptionWork) -> CaptionWork:
    """The work with the files of its partition listed once, as a chain has it."""
    tables = ["views", "images", "captions", *(role.answers for role in order.lineup.roles)]
    files = {table: order.run.files(table) for table in tables}
    return replace(order, run=order.run.with_file_listing(files))


def blocks(order: CaptionWork) -> list[pa.Table]:
    found: Iterator[pa.Table] = order.read(PARTITION)
    return list(found)


def answer_all(order: CaptionWork, block: pa.Table, answers: KeyedAnswers) -> pa.Table:
    """Take a block through one stage per role."""
    for role in order.lineup.roles:
        block = order.answer(block, [role.name], answers)
    return block


def files_of(run: Run, lineup: ResolvedLineup, roles: Sequence[Any]) -> list[str]:
    return [path for role in roles for path in run.files(role.answers)]
