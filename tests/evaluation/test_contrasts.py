from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from caslie_ray.evaluation._contrasts import contrasts_of, views_of
from caslie_ray.evaluation._results import measure
from caslie_ray.fusion import fuse
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


def test_samples_on_which_variants_differ_come_with_their_answers_and_views(run: Run) -> None:
    measured = measure(run, ANSWERERS, (), 10)
    assert measured is not None
    shown = contrasts_of(run, measured, 1000)
    held = {row["sample_id"]: row for row in run.read("samples").to_pylist()}
    assert {one.sample_id for one in shown} == {name for name, row in held.items() if row["split"] in ("ind", "ood")}
    for one in shown:
        assert [answer.variant for answer in one.answers] == ["text", "uia", "caslie"]
        assert [answer.right for answer in one.answers[1:]] == [False, True]
        assert list(one.views) == [view for view in held[one.sample_id]["view_ids"] if view]
        assert one.text
        assert not one.text.startswith(held[one.sample_id]["instruction"])
    views = views_of(run, {view for one in shown for view in one.views}, None)
    assert {view.view_id for view in views} == {view for one in shown for view in one.views}
    assert all(view.splits for view in views)


def test_a_few_are_chosen_evenly_and_the_same_each_time(run: Run) -> None:
    measured = measure(run, ANSWERERS, (), 10)
    assert measured is not None
    few = contrasts_of(run, measured, 7)
    assert len(few) == 7
    assert len({one.task for one in few}) >= 3
    assert few == contrasts_of(run, measured, 7)
