"""Blocks of questions, and what a recomputed one asks again. No Ray, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest

from caslie_ray.engines import Failure, Generation, Request
from caslie_ray.pipeline.blocks import pack, unpack
from caslie_ray.prediction._answerers import Answerer
from caslie_ray.prediction._known_answers import PREDICTIONS
from caslie_ray.prediction._partition import PredictionSpec
from caslie_ray.roles import Role
from caslie_ray.storage.run import open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import TASKS

PARTITION, SAMPLES = "3f", 10


class Answers:
    """Answers each prompt with its key, or fails."""

    def __init__(self, failure: Failure | None = None) -> None:
        self.failure = failure
        self.asked: list[Request] = []

    def generate(self, role: Any, requests: Sequence[Request]) -> list[Generation]:
        self.asked += requests
        return [Generation(request.key, f"A: {request.key}", 5, 3, False, self.failure) for request in requests]

    def choose(self, *_: Any) -> Any:
        raise AssertionError


@pytest.fixture
def spec(tmp_path: Path) -> PredictionSpec:
    run = open_run(str(tmp_path / "run"))
    task = next(iter(TASKS))
    rows = [
        {
            "sample_id": f"s{n}", "task": task, "split": "ind", "variant": variant, "response": "A",
            "prompt": f"Question {n // 2}?" + "!" * (n % 3), "options": ["A: yes", "B: no"], "source_ids": [f"r{n}"],
            "prompt_fields": [[0, 8]], "prompt_captions": [],
        }
        for n in range(SAMPLES) for variant in ("caslie", "text")
    ]  # fmt: skip
    run.write("instructions", PARTITION, pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))
    answerers = tuple(
        Answerer("unim3", variant, "instructions", variant, (), variant, f"print of {variant}")
        for variant in ("caslie", "text")
    )
    return PredictionSpec(run, cast(Role, None), answerers, ("ind",), 4, retry=False)


def blocks(spec: PredictionSpec) -> list[pa.Table]:
    return list(spec.read(PARTITION))


def test_every_question_is_asked_once_in_blocks(spec: PredictionSpec) -> None:
    answers = Answers()
    reports = [spec.write(spec.answer(travelled(block), ["unim3"], answers)) for block in blocks(spec)]
    assert sum(report["views"] for report in reports) == 2 * SAMPLES
    assert [report["errors"] for report in reports] == [0] * len(reports)
    found = {(row["sample_id"], row["variant"]) for row in spec.run.read(PREDICTIONS).to_pylist()}
    assert found == {(f"s{n}", variant) for n in range(SAMPLES) for variant in ("caslie", "text")}
    assert [request.adapter for request in answers.asked] == ["caslie"] * SAMPLES + ["text"] * SAMPLES
    assert answers.asked[0].prompt.fields == ((0, 8),)
    assert blocks(spec) == []


def test_a_block_that_is_read_again_is_the_same_whatever_was_answered_since(spec: PredictionSpec) -> None:
    listed = replace(
        spec, run=spec.run.with_file_listing({"instructions": spec.run.files("instructions"), PREDICTIONS: []})
    )
    first, *rest = blocks(listed)
    listed.answer(first, ["unim3"], Answers())
    for before, after in zip([first, *rest], blocks(listed), strict=True):
        assert after.equals(before, check_metadata=True)


@pytest.mark.parametrize("retry", [False, True])
def test_a_recomputed_block_asks_nothing_again(spec: PredictionSpec, retry: bool) -> None:
    spec = replace(spec, retry=retry)
    first, *_ = blocks(spec)
    again = Answers()
    before = spec.answer(first, ["unim3"], Answers())
    assert spec.answer(first, ["unim3"], again).equals(before)
    assert again.asked == []


@pytest.mark.parametrize(
    ("retryable", "retry", "repeated"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_failures_are_asked_again_in_the_first_pass_only(
    spec: PredictionSpec, retryable: bool, retry: bool, repeated: bool
) -> None:
    spec = replace(spec, retry=retry)
    first, *_ = blocks(spec)
    failed = spec.answer(first, ["unim3"], Answers(Failure("out of memory", retryable)))
    assert spec.write(failed)["errors"] == first.num_rows
    again = Answers()
    assert spec.write(spec.answer(first, ["unim3"], again))["errors"] == (0 if repeated else first.num_rows)
    assert bool(again.asked) is repeated


def test_a_damaged_file_is_asked_again(spec: PredictionSpec) -> None:
    first, *_ = blocks(spec)
    spec.answer(first, ["unim3"], Answers())
    (path,) = spec.run.files(PREDICTIONS)
    Path(path).write_bytes(b"half")
    again = Answers()
    spec.answer(first, ["unim3"], again)
    assert len(again.asked) == first.num_rows
    assert spec.run.read(PREDICTIONS).num_rows == first.num_rows


def travelled(block: pa.Table) -> pa.Table:
    opened = unpack(pack(block))
    assert isinstance(opened, pa.Table)
    return opened
