"""One chain on a real Ray, with engines that do what their prompts say."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import ray

from caslie_ray.errors import PoolDown, RunError
from caslie_ray.pipeline.chain import Aborted, abort_chain
from tests.chains import Lab, Prompts, plan, replicas
from tests.clusters import until
from tests.engines.process.fakes import FAILING

pytestmark = pytest.mark.timeout(180)

Make = Callable[..., Lab]


def test_every_row_of_every_partition_is_answered_once(make: Make) -> None:
    lab = make()
    work = Prompts(lab.run, {"a": [f"p{n}" for n in range(10)], "b": ["q0"], "c": []})
    reports = list(lab.chain(work))
    assert sorted(report["views"] for report in reports) == [1, 2, 4, 4]
    assert lab.column("phi") == [f"p{n}" for n in range(10)] + ["q0"]
    stats = lab.stats()
    assert (stats.requests, stats.deaths, stats.down) == (11, 0, None)
    assert stats.details == {"answered": 11.0}
    assert stats.busy_s > 0.0


def test_a_block_passes_every_stage_in_order(make: Make) -> None:
    lab = make(plan("captioner"), plan("phi"), plan("mistral"))
    list(lab.chain(lab.work(*(f"p{n}" for n in range(8)))))
    (columns,) = {tuple(row) for row in lab.rows().values()}
    assert [name for name in columns if not name.startswith("replica")] == [
        "key", "prompt", "captioner", "phi", "mistral"
    ]  # fmt: skip
    assert len({row[f"replica of {one.name}"] for one in lab.plans for row in lab.rows().values()}) == 3
    assert [lab.stats(number).requests for number in range(3)] == [8, 8, 8]


@pytest.mark.parametrize("where", ["read", "answer", "write"])
@pytest.mark.parametrize(("error", "text"), [(RunError, ""), (ZeroDivisionError, "ZeroDivisionError: ")])
def test_an_error_of_the_store_or_the_code_ends_the_chain_with_its_text(
    make: Make, where: str, error: type[Exception], text: str
) -> None:
    lab = make()
    with pytest.raises(RunError, match=f"^{text}no {where} today$"):
        list(lab.chain(lab.work(*("p" * 8), broken=where, error=error)))


def test_rows_that_end_the_engine_fail_alone_and_keep_the_replica(make: Make) -> None:
    lab = make()
    list(lab.chain(lab.work("p0", "exit", "p2", "p3", "segfault", "p5", block_rows=6)))
    answers = lab.column("phi")
    assert [answers[n] for n in (0, 2, 3, 5)] == ["p0", "p2", "p3", "p5"]
    assert answers[1].startswith("poison: alone in its batch, it ended its process (exit code 7")
    assert "SIGSEGV" in answers[4]
    assert len(set(lab.column("replica of phi"))) == 1
    assert lab.stats().deaths == 3, "the batch, and each of the two rows alone"
    assert lab.view().error is None


def test_a_needed_pool_that_cannot_be_loaded_reports_the_reason(make: Make) -> None:
    lab = make(plan("phi"), plan("mistral", FAILING))
    with pytest.raises(PoolDown, match=r"^mistral is down: there is no checkpoint org/mistral"):
        list(lab.chain(lab.work("p0")))
    assert lab.view(1).error is not None
    assert "mistral (org/mistral) cannot be started: there is no checkpoint" in str(lab.view(1).error)


def test_the_others_continue_without_a_pool_that_is_not_needed(make: Make) -> None:
    lab = make(plan("phi", FAILING, needed=False), plan("mistral"))
    list(lab.chain(lab.work("p0", "p1", block_rows=1)))
    assert lab.column("mistral") == ["p0", "p1"]
    assert all(reason.startswith("phi is down: there is no checkpoint org/phi") for reason in lab.column("phi"))
    assert not lab.view().unplaced


def test_an_engine_that_answers_nothing_is_a_pool_that_is_down(make: Make) -> None:
    lab = make()
    with pytest.raises(PoolDown, match=r"^phi is down: each of the last 2 rows that it was given alone ended"):
        list(lab.chain(lab.work(*["exit"] * 4), failures_in_a_row=2))


def test_a_hot_image_keeps_every_replica_at_work(make: Make) -> None:
    """All blocks come from one partition: whoever is free takes the next."""
    lab = make(plan("phi", limit=2))
    list(lab.chain(lab.work(*["sleep:0.5"] * 48, block_rows=1)))
    shares = [lab.column("replica of phi").count(replica) for replica in set(lab.column("replica of phi"))]
    assert len(shares) == 2
    assert min(shares) >= 8


def test_blocks_smaller_than_a_batch_share_engine_calls(make: Make) -> None:
    lab = make()
    assert lab.plans[0].spec.batch_size == 16
    list(lab.chain(lab.work(*["sleep:0.1"] * 64, block_rows=2), full_batches=True))
    assert lab.column("phi") == ["sleep:0.1"] * 64
    assert lab.stats().calls <= 12, "two or more calls of the first blocks, then full batches"


def test_late_stages_get_blocks_before_early_ones_are_done(make: Make) -> None:
    lab = make(plan("captioner"), plan("phi"))
    chain = lab.chain(lab.work(*["sleep:0.2"] * 60, block_rows=2))
    next(chain)
    assert lab.stats(0).requests < 60
    assert sum(report["views"] for report in chain) == 58


def test_a_replica_that_is_killed_is_replaced_and_its_blocks_are_repeated(make: Make) -> None:
    lab = make()
    chain = lab.chain(lab.work(*["sleep:0.2"] * 40, block_rows=2))
    done = next(chain)["views"]
    (replica,) = replicas()
    replica.kill()
    assert done + sum(report["views"] for report in chain) == 40
    assert lab.column("phi") == ["sleep:0.2"] * 40
    stats = lab.stats()
    assert stats.deaths == 1
    assert stats.requests >= 38, "what the lost one had reported is kept"


def test_an_engine_is_closed_when_its_chain_has_ended(make: Make, tmp_path: Path) -> None:
    lab = make(plan("phi", "tests.chains:load_closing", checkpoint=str(tmp_path / "model")))
    list(lab.chain(lab.work("p0")))
    closed = tmp_path / "model.closed"
    until(lambda: gc.collect() is not None and closed.exists(), 90, "the engine to be closed")


@pytest.mark.parametrize("after_s", [0.0, 6.0], ids=["at once", "at work"])
def test_a_chain_that_is_aborted_ends_soon_and_leaves_no_replica(make: Make, after_s: float) -> None:
    lab = make()
    chain = lab.chain(lab.work(*["sleep:0.5"] * 200, block_rows=1))
    timer = threading.Timer(after_s, abort_chain, ["captioner is down"])
    begun = time.monotonic()
    timer.start()
    with pytest.raises(Aborted, match="captioner is down"):
        list(chain)
    assert time.monotonic() - begun < after_s + 20
    until(lambda: gc.collect() is not None and not replicas(), 60, "replicas to end")


def test_a_chain_follows_one_that_was_aborted(make: Make) -> None:
    lab = make()
    chain = lab.chain(lab.work(*["sleep:0.5"] * 200, block_rows=1))
    next(chain)
    abort_chain("another pass")
    with pytest.raises(Aborted):
        list(chain)
    ray.get(lab.monitor.begin.remote(), timeout=30)
    list(lab.chain(lab.work("p0", "p1", block_rows=1)))
    assert lab.rows()["a-001"]["phi"] == "p1"
    assert lab.view().error is None
    assert lab.stats().deaths == 0, "replicas that were released are not lost"


def test_replicas_of_an_aborted_chain_end_before_the_next_one_needs_their_room(make: Make) -> None:
    lab = make()
    chain = lab.chain(lab.work(*["sleep:0.5"] * 200, block_rows=1))
    next(chain)
    abort_chain("another pass")
    with pytest.raises(Aborted) as kept:
        list(chain)
    ray.get(lab.monitor.begin.remote(), timeout=30)
    until(lambda: not replicas(), 30, "replicas to end")
    assert kept.tb is not None, "its frames refer to the executor, and that to the replicas"


def test_a_chain_without_progress_is_given_up_and_another_one_works(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    lab = make()
    with caplog.at_level(logging.WARNING):
        assert list(lab.chain(lab.work("sleep:30"), no_progress_s=12.0)) == []
    assert "no progress for 12 s: the chain is built again" in caplog.text
    ray.get(lab.monitor.begin.remote(), timeout=30)
    assert [report["views"] for report in lab.chain(lab.work("p0"))] == [1]
    assert lab.column("phi") == ["p0"]


def test_a_consumer_that_stops_ends_the_chain(make: Make) -> None:
    chain = cast(Any, (lab := make()).chain(lab.work(*["sleep:0.5"] * 200, block_rows=1)))
    next(chain)
    chain.close()
    until(lambda: not replicas(), 60, "replicas to end")


def test_work_without_models_is_read_and_written(make: Make) -> None:
    lab = make()
    lab.plans = ()
    assert [report["views"] for report in lab.chain(replace(lab.work("p0", "p1"), block_rows=2))] == [2]
