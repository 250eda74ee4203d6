from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray
from caslie_ray.pipeline.passes import Models, RouterAsk, block_rows_for, check_models, pass_after_pass, run_pass

from caslie_ray.dataset._ray import each_of_stream
from caslie_ray.engines import EngineSpec, resolve
from caslie_ray.errors import EngineError, PoolDown
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.profiles import FaultSettings, load_profile
from caslie_ray.roles import Role, role_of
from caslie_ray.storage.run import Run, open_run


class Ledger:
    """Partitions of which passes finish some rows."""

    def __init__(self, rows: dict[str, int], finished: Iterator[int]) -> None:
        self.rows, self._finished = dict(rows), finished
        self.passes: list[tuple[list[str], int]] = []

    def once(self, names: list[str], smaller: int) -> None:
        self.passes.append((names, smaller))
        left = next(self._finished)
        for name in names:
            done = min(left, self.rows[name])
            self.rows[name] -= done
            left -= done

    def look(self, names: list[str]) -> dict[str, int]:
        return {name: self.rows[name] for name in names}


@pytest.mark.parametrize(
    ("finished", "passes", "left"),
    [
        ([9], [(["a", "c"], 0)], 0),
        ([5, 4], [(["a", "c"], 0), (["c"], 0)], 0),
        # Cut short again and again, but never without having done something.
        ([1, 1, 1, 6], [(["a", "c"], 0)] * 4, 0),
        ([0, 1, 0, 8], [(["a", "c"], 0), (["a", "c"], 1), (["a", "c"], 1), (["a", "c"], 2)], 0),
        ([0, 0, 0], [(["a", "c"], 0), (["a", "c"], 1), (["a", "c"], 2)], 9),
    ],
    ids=["one", "rest", "cut", "smaller", "stalled"],
)
def test_passes_go_on_until_nothing_is_left_or_nothing_moves(
    finished: list[int], passes: list[tuple[list[str], int]], left: int
) -> None:
    ledger = Ledger({"a": 5, "b": 0, "c": 4}, iter(finished))
    pass_after_pass(ledger.rows, ledger.once, ledger.look, patience=3)
    assert ledger.passes == passes
    assert sum(ledger.rows.values()) == left


@pytest.mark.parametrize(
    ("gpus", "batch", "rows"), [(0.0, 48, 64), (1.0, 48, 48), (1.0, 128, 128), (1.0, 16, 64), (0.5, 24, 48)]
)
def test_a_block_for_a_gpu_is_made_of_full_batches(gpus: float, batch: int, rows: int) -> None:
    spec = EngineSpec("phi", batch_size=batch)
    assert block_rows_for([PoolPlan("phi", "phi", spec, 1.0, gpus, 0.0, 1, 1)], 64) == rows
    assert block_rows_for([], 64) == 64


@dataclass(frozen=True)
class SlowOrder:
    """One block that takes longer than Ray Data's no-progress guard allows."""

    run: Run
    written: str = "captions"

    def work(self, partition: str, ask: RouterAsk | None) -> Iterator[dict[str, int]]:
        time.sleep(4)
        yield {"views": 1, "errors": 0, "saved": 0}


@pytest.fixture
def short_guard(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Data ends an execution that makes no progress for two seconds, in place of half an hour."""
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 2)


def test_a_pass_that_waits_for_models_is_not_ended_by_ray_data(short_guard: None, tmp_path: Path) -> None:
    order = SlowOrder(open_run(str(tmp_path)))
    reports = list(run_pass(order, None, ["00"], [{}], tasks=1))
    assert reports == [{"views": 1, "errors": 0, "saved": 0}]


def test_a_slow_item_of_an_ingest_is_not_ended_by_ray_data(short_guard: None) -> None:
    def split(item: int) -> Iterator[int]:
        time.sleep(4)
        yield item

    found = each_of_stream([1], split, lambda part: part + 1, concurrency=1, memory=0)
    assert list(found) == [2]


@pytest.fixture
def mute(tmp_path: Path) -> Role:
    """A voter whose checkpoint has no chat template."""
    voter = load_profile("mini").lineup.voters[0]
    folder = Path(shutil.copytree(resolve(voter.checkpoint).location, tmp_path / "mute"))
    role = role_of(voter.model_copy(update={"checkpoint": str(folder)}))
    (folder / "chat_template.jinja").unlink()
    return role


def test_a_model_that_can_never_be_loaded_ends_the_job_before_replicas_start(mute: Role) -> None:
    models = Models(FaultSettings(), [mute], 1)
    with pytest.raises(EngineError, match=r"has no chat template.*use an instruction-tuned checkpoint") as caught:
        models.__enter__()
    assert not isinstance(caught.value, PoolDown)
    assert models.router is None


def test_a_model_that_the_job_can_do_without_is_warned_of(mute: Role, caplog: pytest.LogCaptureFixture) -> None:
    check_models([mute], needed={"captioner"})
    assert f"{mute.name}: checkpoint {mute.spec.checkpoint} has no chat template" in caplog.text
    with pytest.raises(EngineError):
        check_models([replace(mute, name="captioner")], needed={"captioner"})
