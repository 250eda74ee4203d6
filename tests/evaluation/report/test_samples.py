"""Samples on which variants differ are chosen evenly, and looked up with their answers and views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from caslie_ray.evaluation.answers.contrasts import Contrast, Difference, evenly
from caslie_ray.evaluation.answers.measure import Measured, measure
from caslie_ray.evaluation.answers.samples import find_samples
from caslie_ray.evaluation.captions.views import find_splits, find_views
from caslie_ray.evaluation.report.shown import ShownSample
from caslie_ray.fusion import fuse
from caslie_ray.hashing import content_id
from caslie_ray.prediction import Answerer
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS
from tests.worlds import InProcess, caption_here, fresh_run, profile

ANSWERERS = [
    Answerer("base", name, "instructions", name, (), None, f"the weights of {name}")
    for name in ("caslie", "uia", "text")
]


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Run:
    """A run in which `caslie` is right about all, `uia` about none, and `text` about every other sample."""
    made = fresh_run(world, tmp_path / "run")
    given = profile(settings=["captions.source=dataset", "votes.rule=always"])
    caption_here(made, given, InProcess())
    fuse(made, given, quiet=True)
    samples = [row for row in made.read("samples").to_pylist() if row["split"] in ("ind", "ood")]
    right: dict[str, Callable[[int], bool]] = {
        "caslie": lambda _: True,
        "uia": lambda _: False,
        "text": lambda n: n % 2 == 0,
    }
    named = {answerer.reads: answerer for answerer in ANSWERERS}
    keys = {
        (row["sample_id"], row["variant"]): named[row["variant"]].key(row["prompt"])
        for row in made.read("instructions").to_pylist()
    }
    rows = [
        {"sample_id": row["sample_id"], "model": "base", "variant": variant, "text": "x", "failed": not is_right(n),
         "answer": row["output"] if is_right(n) else None, "key": keys[row["sample_id"], variant], "tokens": 1,
         "cut": False, "error": None, "retryable": False}
        for n, row in enumerate(samples) for variant, is_right in right.items()
    ]  # fmt: skip
    for digit in "0123456789abcdef":
        part = [row for row in rows if row["sample_id"].startswith(digit)]
        made.write("predictions", digit, pa.Table.from_pylist(part, schema=SCHEMAS["predictions"]))
    return made


def measured(run: Run) -> Measured:
    found = measure(run, ANSWERERS, (), 10)
    assert found is not None
    return found


def shown(run: Run, found: Measured) -> list[ShownSample]:
    return find_samples(run, found.contrasts, "base", found.results.variants)


def test_samples_on_which_variants_differ_come_with_their_answers_and_views(run: Run) -> None:
    samples = shown(run, measured(run))
    stored = {row["sample_id"]: row for row in run.read("samples").to_pylist()}
    expected = {name for name, row in stored.items() if row["split"] in ("ind", "ood")}
    assert {one.sample_id for one in samples} == expected
    for one in samples:
        assert [answer.variant for answer in one.answers] == ["text", "uia", "caslie"]
        assert [answer.right for answer in one.answers[1:]] == [False, True]
        assert list(one.views) == [view for view in stored[one.sample_id]["view_ids"] if view]
        assert one.text
        assert not one.text.startswith(stored[one.sample_id]["instruction"])
    ids = {view for one in samples for view in one.views}
    views = find_views(run, ids, None, find_splits(run, ids))
    assert {view.view_id for view in views} == ids
    for view in views:
        assert set(view.splits) == {row["split"] for row in stored.values() if view.view_id in (row["view_ids"] or ())}


def test_tasks_read_the_same_answers_samples_and_views(
    ray_cluster: None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = measured(run)
    samples = shown(run, here)
    ids = {view for one in samples for view in one.views}
    views = find_views(run, ids, None, find_splits(run, ids))
    monkeypatch.setattr("caslie_ray.cluster.distribution.DISTRIBUTE_FROM", 1)
    in_tasks = measured(run)
    assert {cell: found.codes.tolist() for cell, found in in_tasks.outcomes.items()} == {
        cell: found.codes.tolist() for cell, found in here.outcomes.items()
    }
    assert in_tasks.contrasts == here.contrasts
    assert in_tasks.results.used == here.results.used
    assert shown(run, in_tasks) == samples
    assert find_views(run, ids, None, find_splits(run, ids)) == views


def contrasts(count: int) -> list[Contrast]:
    kinds = [Difference(task, split, (("text", right), ("uia", not right)))
             for task in "abc" for split in ("ind", "ood") for right in (False, True)]  # fmt: skip
    return [
        Contrast(kinds[n * n % 7 % len(kinds)], content_id(str(n)), str(n), format(n % 16, "x")) for n in range(count)
    ]


def test_a_few_are_chosen_evenly() -> None:
    found = contrasts(100)
    few = evenly(found, 9)
    assert len(few) == 9
    counts = Counter(one.difference for one in few)
    assert set(counts) == {one.difference for one in found}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(evenly(found, 1000)) == 100


@pytest.mark.parametrize("at_most", [1, 7, 30, 90])
def test_choosing_from_choices_of_parts_is_choosing_from_all(at_most: int) -> None:
    found = contrasts(100)
    parts = [evenly((one for one in found if one.partition == digit), at_most) for digit in "0123456789abcdef"]
    assert evenly((one for part in parts for one in part), at_most) == evenly(found, at_most)
