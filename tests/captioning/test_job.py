"""The caption job on Ray: both schedules, plans, pools, and the tables at the end.

More faults are in tests/test_faults.py.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from caslie_ray.captioning import CaptionJob, _job, _plan, _plan_sample, caption, plan_captions
from caslie_ray.captioning._merge import write_answers
from caslie_ray.errors import PoolDown, RunError
from caslie_ray.pipeline.placement import PoolPlan, pool_plans, size_pools
from caslie_ray.pipeline.pools import Pools
from caslie_ray.profiles import Profile
from caslie_ray.roles import resolve
from caslie_ray.storage.run import Run, open_run
from tests import faulty
from tests.worlds import InProcess, caption_here, edit_views, fresh_run, nearly, profile, rows, stored_ids, voter

FAULTY = "tests.faulty:load"
TWO = [voter("llama-3b")]


@pytest.fixture(scope="module")
def done(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("done") / "run"
    result = caption(fresh_run(world, path), profile(), quiet=True)
    assert result.missing == 0
    return path


def all_ids(run: Run) -> list[str]:
    return sorted(run.read("views", ["view_id"])["view_id"].to_pylist())


def mark(run: Run, word: str, count: int) -> list[str]:
    """Append a word to the caption prompts of the first views, which triggers a fault in the faulty engine."""
    chosen = {row["view_id"] for row in rows(run, "views")[:count]}
    return edit_views(
        run,
        lambda row: {**row, "caption_prompt": f"{row['caption_prompt']} {word}"} if row["view_id"] in chosen else None,
    )


def faulty_profile(*settings: str) -> Profile:
    return profile(
        *TWO, settings=[f"lineup.captioner.engine={FAULTY}", "votes.rule=always", "storage.block_rows=8", *settings]
    )


def test_rows_of_both_schedules_are_those_of_one_process(done: Path, world: Path, tmp_path: Path) -> None:
    staged = fresh_run(world, tmp_path / "staged")
    assert caption(staged, profile(*TWO, settings=["schedule=staged"]), quiet=True).missing == 0
    ask = InProcess()
    for name, run, voters in (("streamed", open_run(str(done)), []), ("staged", staged, TWO)):
        alone = fresh_run(world, tmp_path / f"{name}-alone")
        caption_here(alone, profile(*voters), ask)
        assert rows(run) == nearly(rows(alone))
        assert stored_ids(run) == all_ids(run)
        assert len(run.files("captions")) == len(run.files("views"))


def test_both_schedules_end_with_the_same_rows(done: Path, world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    result = caption(run, profile(settings=["schedule=staged"]), quiet=True)
    assert result.missing == 0
    streamed = open_run(str(done))
    assert rows(run) == nearly(rows(streamed))
    assert stored_ids(run) == all_ids(run) == stored_ids(streamed)
    assert len(run.files("captions")) == len(run.files("views"))


def test_a_second_run_computes_nothing_and_loads_no_model(done: Path, tmp_path: Path) -> None:
    run = fresh_run(done, tmp_path / "run")
    before = {path: run.fs.get_file_info(path).mtime_ns for path in run.files("captions")}
    result = caption(run, profile(), quiet=True)
    session = result.summary["this_session"]
    assert (session["views_computed"], session["model_calls"], session["models"]) == (0, 0, {})
    assert {path: run.fs.get_file_info(path).mtime_ns for path in run.files("captions")} == before


def test_the_summary_is_counted_from_the_table(done: Path) -> None:
    run = open_run(str(done))
    summary = run.read_json("summary/caption.json")
    table = rows(run)
    assert summary["views"] == len(table)
    assert summary["captions_used"]["share"] == sum(row["verdict"] for row in table) / len(table)
    assert summary["calls"] == sum(row["calls"] for row in table)
    assert summary["calls_saved_by_early_exit"] == 3 * len(table) - sum(len(row["votes"]) for row in table)
    assert sum(cell["views"] for cell in summary["captions_used"]["by_task"].values()) == len(table)
    session = summary["this_session"]
    assert session["views_computed"] == len(table)
    assert session["model_calls"] <= summary["calls"]
    assert session["seconds_an_instance"]["voting"] > 0
    assert summary["repeats_saved"] is None  # ingest has left no summary here


@pytest.mark.chaos
def test_a_row_that_kills_its_replica_is_a_final_error_row(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    poison = mark(run, faulty.EXIT, 1)
    result = caption(run, faulty_profile(), quiet=True)
    assert result.missing == 0
    for row in rows(run):
        if row["view_id"] in poison:
            assert "poison" in row["error"]
            assert not row["retryable"]
        else:
            assert row["error"] is None
            assert row["caption"]
    again = caption(run, faulty_profile(), quiet=True)
    assert again.summary["this_session"]["views_computed"] == 0, "a poison row was retried"


def test_a_model_that_cannot_be_loaded_is_named_in_the_error(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    broken = voter("phi", engine="tests.faulty:refuse")
    with pytest.raises(PoolDown, match=r"phi \(miniature:voter-phi\).*no room for miniature:voter-phi"):
        caption(run, profile(broken), quiet=True)
    assert run.files("captions") == []


def test_a_model_without_room_is_reported_with_its_resources(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    small = voter("phi", resources={"cpus": 0.2, "gpus": 0.5})

    @ray.remote(num_cpus=0, num_gpus=1)
    class Holder:
        def here(self) -> bool:
            return True

    holder = Holder.remote()  # type: ignore[attr-defined]  # the decorator hides it from the checker
    assert ray.get(holder.here.remote())
    try:
        with pytest.raises(
            PoolDown, match=r"phi: 0 of 1 replicas were ready after 3 s; each needs 0\.2 CPUs, 0\.5 GPUs"
        ):
            caption(run, profile(small, settings=["faults.start_timeout_s=3", "captions.source=dataset"]), quiet=True)
    finally:
        ray.kill(holder)


def test_a_lineup_too_large_for_this_machine_is_refused_at_once(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    large = voter("phi", resources={"cpus": 0.2, "gpus": 4.0})
    with pytest.raises(PoolDown, match="phi: 4 GPUs are needed and this machine has 1"):
        caption(run, profile(large, settings=["captions.source=dataset"]), quiet=True)


def test_a_pool_with_a_fraction_of_a_gpu_is_placed(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    seen: list[float] = []

    def watch() -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and 0.8 not in seen:
            seen.append(round(ray.available_resources().get("GPU", 0.0), 3))
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    small = voter("phi", resources={"cpus": 0.2, "gpus": 0.2}, engine="tests.worlds:load_on_cpu")
    result = caption(run, profile(small, settings=["captions.source=dataset"]), quiet=True)
    thread.join()
    assert result.missing == 0
    assert 0.8 in seen


def test_roles_that_share_a_checkpoint_share_a_pool(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    both = profile().lineup.captioner.model_dump(exclude={"name", "cost"})
    lineup = profile({"name": "eyes", **both})
    plans = pool_plans(CaptionJob(run, lineup).lineup.roles)
    assert [plan.name for plan in plans] == ["captioner"]
    result = caption(run, lineup, quiet=True)
    assert result.missing == 0
    assert list(result.summary["this_session"]["models"]) == ["captioner"]
    assert {vote["voter"] for row in rows(run) for vote in row["votes"]} == {"eyes"}


def test_a_run_without_views_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run ingest first"):
        caption(open_run(str(tmp_path / "empty")), profile(), quiet=True)


def test_rows_of_a_truncated_file_are_computed_again(done: Path, tmp_path: Path) -> None:
    run = fresh_run(done, tmp_path / "run")
    before = rows(run)
    path = Path(run.files("captions")[0])
    path.write_bytes(path.read_bytes()[:100])
    result = caption(run, profile(), quiet=True)
    assert result.missing == 0
    assert rows(run) == nearly(before)
    assert 0 < result.summary["this_session"]["views_computed"] < len(before)


def test_a_plan_changes_nothing_and_counts_what_is_missing(done: Path, world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    plan = plan_captions(run, profile(voter("phi"), settings=["cost.hour_usd=3600"]), quiet=True)
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == names
    total = len(all_ids(run))
    assert (plan.views, plan.done, plan.missing) == (total, 0, total)
    assert plan.calls["captioner"] == total
    assert plan.seconds is not None
    assert plan.usd == pytest.approx(plan.seconds)
    nothing = plan_captions(open_run(str(done)), profile(), quiet=True)
    assert (nothing.missing, nothing.seconds, nothing.timed) == (0, 0.0, 0)
    assert "nothing to do" in nothing.lines()[-1]
    assert nothing.memory == []  # on the CPU
    on_gpu = profile(settings=["lineup.captioner.resources.gpus=0.5"])
    lines = plan_captions(open_run(str(done)), on_gpu, quiet=True).lines()
    assert any(line.startswith("GPU memory   captioner  1.") and "gpus 0.1 of 24 GB" in line for line in lines)


def test_a_plan_times_an_unlimited_pool_with_its_minimum_of_replicas(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[dict[str, int]] = []

    class RecordedPools(Pools):
        def __enter__(self) -> Any:
            pools = super().__enter__()
            timed.append({plan.name: plan.limit for plan in self.plans})
            return pools

    monkeypatch.setattr(_job, "Pools", RecordedPools)
    staged = ["schedule=staged", "lineup.captioner.pool.max=null", "lineup.captioner.batch_size=4"]
    lineup = profile(voter("phi", pool={"min": 1, "max": None}, batch_size=4), settings=staged)
    plan = plan_captions(fresh_run(world, tmp_path / "run"), lineup, quiet=True)
    assert timed == [{"captioner": 1}, {"phi": 1}]
    captioners, phis = plan.replicas.values()
    assert captioners > 1
    assert phis > 1
    assert plan.seconds is not None
    assert f"replicas     captioner {captioners} · phi {phis}" in plan.lines()
    plan.replicas_unknown = True
    assert f"replicas     up to captioner {captioners} · phi {phis}" in plan.lines()


def test_the_time_of_a_plan_is_scaled_to_the_planned_replicas_of_each_stage() -> None:
    pools = pool_plans(resolve(profile(voter("phi"), settings=["lineup.captioner.pool.max=null"])).roles)
    captioner, phi = (replace(pool, gpus=1.0, cpus=0.0) for pool in pools)
    eight = {"CPU": 8.0, "GPU": 8.0}

    def speedup(pools: list[PoolPlan], rows: int) -> float:
        return _plan.speedup(size_pools(pools, 0, eight), size_pools(pools, rows, eight))

    assert speedup([captioner], 10**6) == 8
    assert speedup([captioner, phi], 10**6) == 7
    assert speedup([phi], 10**6) == 1
    assert speedup([captioner], 40) == 3  # batches of 16
    assert speedup([replace(captioner, minimum=2)], 10**6) == 4
    assert speedup([replace(captioner, maximum=8)], 10**6) == 1
    views = {"w": 4, "x": 10, "y": 110}
    seconds: dict[str | None, dict[str, float]]
    seconds = {"captioner": {"w": 9.0, "x": 10.0, "y": 90.0}, "phi": {"w": 9.0, "x": 2.0, "y": 12.0}}
    assert _plan.seconds_per_view(seconds, views, {"captioner": 8.0, "phi": 1.0}) == pytest.approx(0.1 + 0.1)
    assert _plan.seconds_per_view(seconds, views, {"captioner": 1.0, "phi": 1.0}) == pytest.approx(0.8 + 0.1)
    assert _plan.seconds_per_view({None: {"w": 1.0, "x": 10.0, "y": 90.0}}, views, {None: 4.0}) == pytest.approx(0.2)


def test_the_sample_of_a_plan_fills_batches_on_gpus() -> None:
    on_cpu = resolve(profile(voter("phi"))).roles
    assert _plan_sample.part_sizes(on_cpu, 1000) == (2, 2, 32)
    captioner, phi = (replace(role, resources=role.resources.model_copy(update={"gpus": 0.5})) for role in on_cpu)
    large = replace(phi, spec=replace(phi.spec, batch_size=256))
    assert _plan_sample.part_sizes([captioner, large], 1000) == (2, 16, 256)
    assert _plan_sample.part_sizes([on_cpu[0], large], 1000) == (2, 2, 256)
    assert _plan_sample.part_sizes([large], 1000) == (2, 256, 512)
    assert _plan_sample.part_sizes([captioner, large], 32) == (2, 10, 256)  # of few views, most go to the long part


def test_a_failed_voter_is_asked_again_by_the_next_run(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = [voter("phi")]
    caption_here(run, profile(*lineup), InProcess())
    before = rows(run)

    def fail(row: dict[str, Any]) -> dict[str, Any]:
        votes = [dict(vote) for vote in row["votes"]]
        votes[0] |= {"answer": None, "p_yes": None, "error": "phi is down", "retryable": True}
        return {**row, "votes": votes, "retryable": True}

    for path in run.files("captions"):
        table = run.read_file(path)
        failed = [fail(row) for row in table.to_pylist()]
        run.write("captions", run.partition(path), table.from_pylist(failed, schema=table.schema))
    first = before[0]["votes"][0]["voter"]
    (answers,) = [role.answers for role in resolve(profile(*lineup)).roles if role.name == first]
    for path in run.files(answers):
        votes = run.read_file(path).to_pylist()
        failed = [{**vote, "p_yes": None, "error": f"{first} is down", "retryable": True} for vote in votes]
        write_answers(run, answers, run.stem(path), failed)
    result = caption(run, profile(*lineup), quiet=True)
    assert result.summary["this_session"]["model_calls"] == len(before)
    assert {name: m["calls"] for name, m in result.summary["this_session"]["models"].items() if m["calls"]} == {
        first: len(before)
    }
    assert rows(run) == nearly(before)
