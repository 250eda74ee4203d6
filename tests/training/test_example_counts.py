"""What the driver knows of examples is what workers read, in one process and in tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from caslie_ray.profiles import load_profile
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.training._example_counts import count_examples
from caslie_ray.training._examples import read_examples, read_held_back
from caslie_ray.training._registry import digest_of
from caslie_ray.training._spec import training_specs
from tests.training.test_optimizer_steps import examples

PROFILE = load_profile(
    "mini", ["training.variants=[caslie]", "experiments.task_specific=true", "training.validation_samples=3"]
)


def write(run: Run, stem: str, rows: list[dict[str, Any]]) -> None:
    run.write("instructions", stem, pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Three files; two of them share a sample, and one answer is none of the options."""
    run = open_run(str(tmp_path / "run"))
    rows = [
        {**row, "variant": "caslie", "split": "validation" if number % 4 == 0 else "train", "captions_used": 0}
        for number, row in enumerate(examples().rows.to_pylist())
    ]
    rows[1]["response"] = "perhaps"
    write(run, "1", rows[10:])
    write(run, "0", rows[:12])
    write(run, "0-late", [{**rows[11], "response": "no"}])
    return run


def check(run: Run) -> None:
    specs = training_specs(PROFILE)
    assert len(specs) > 5
    for spec, counts in zip(specs, count_examples(run, specs), strict=True):
        train = read_examples(run, spec.table, spec.variant, "train", spec.tasks)
        assert counts.total == len(train)
        assert counts.train_digest == train.digest
        assert counts.digest == digest_of(train, read_held_back(run, spec))
    first, *_ = count_examples(run, specs)
    assert (first.total, first.outside, first.named) == (17, 1, (f"{1:032x}",))


def test_counts_and_hashes_are_those_of_the_examples(run: Run) -> None:
    check(run)
    assert all(one.total == 0 for one in count_examples(open_run(f"{run.root}-none"), training_specs(PROFILE)))


@pytest.mark.usefixtures("ray_cluster")
def test_tasks_count_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caslie_ray.cluster.distribution.DISTRIBUTE_FROM", 1)
    check(run)
