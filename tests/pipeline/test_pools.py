"""The pools of a job: passes, block sizes, models that can never be loaded, and what the driver decides as it polls."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError

from caslie_ray.engines import EngineSpec, resolve
from caslie_ray.errors import EngineError, PoolDown
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.pipeline import pools as pools_module
from caslie_ray.pipeline.chain import Aborted, Stage
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.pool_state import PoolView
from caslie_ray.pipeline.pools import Pools, block_rows_for, check_models, pass_after_pass
from caslie_ray.profiles import FaultSettings, load_profile
from caslie_ray.roles import Role, role_of


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
def test_passes_continue_until_nothing_is_left_or_there_is_no_progress(
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
    assert block_rows_for([PoolPlan("phi", "phi", spec, 1.0, gpus, 0.0, 1, 1)], 64, 10**6) == rows
    assert block_rows_for([], 64, 10**6) == 64


@pytest.mark.parametrize(
    ("total", "replicas", "rows"), [(10**6, 1, 256), (10**6, 100, 100), (10_000, 1, 100), (10_000, 4, 25), (100, 1, 16)]
)
def test_a_killed_job_repeats_about_a_hundredth(total: int, replicas: int, rows: int) -> None:
    def pool(name: str, replicas: int) -> PoolPlan:
        return PoolPlan(name, name, EngineSpec(name), 1.0, 0.0, 0.0, replicas, replicas)

    assert block_rows_for([pool("captioner", replicas), pool("phi", 1)], 256, total) == rows


@pytest.fixture
def mute(tmp_path: Path) -> Role:
    """A voter whose checkpoint has no chat template."""
    voter = load_profile("mini").lineup.voters[0]
    folder = Path(shutil.copytree(resolve(voter.checkpoint).location, tmp_path / "mute"))
    role = role_of(voter.model_copy(update={"checkpoint": str(folder)}))
    (folder / "chat_template.jinja").unlink()
    return role


def test_a_model_that_can_never_be_loaded_ends_the_job_before_replicas_start(mute: Role) -> None:
    pools = Pools(FaultSettings(), [mute], 1)
    with pytest.raises(EngineError, match=r"has no chat template.*use an instruction-tuned checkpoint") as caught:
        pools.__enter__()
    assert not isinstance(caught.value, PoolDown)
    assert pools.plans == []


def test_an_optional_model_that_fails_its_check_is_logged_as_a_warning(
    mute: Role, caplog: pytest.LogCaptureFixture
) -> None:
    check_models([mute], needed={"captioner"})
    assert f"{mute.name}: checkpoint {mute.spec.checkpoint} has no chat template" in caplog.text
    with pytest.raises(EngineError):
        check_models([replace(mute, name="captioner")], needed={"captioner"})


# What the driver decides.


@dataclass
class FakeMonitor:
    """Stands for the actor's handle: `method.remote()` returns what `ray.get` returns for the actor."""

    views: list[PoolView]
    lost: bool = False
    begun: int = 0

    def answer(self, name: str) -> Any:
        if self.lost:
            raise ActorDiedError()
        if name == "begin":
            self.begun += 1
        return [], self.views

    def __getattr__(self, name: str) -> Any:
        class Method:
            @staticmethod
            def remote() -> Callable[[], Any]:
                return lambda: self.answer(name)

        return Method


@dataclass
class Driver:
    """Pools of two models with a fake monitor; a pass is one report, and ends when it is aborted."""

    pools: Pools
    monitor: FakeMonitor
    aborted: list[str] = field(default_factory=list)
    passes: list[tuple[list[Stage], Any]] = field(default_factory=list)
    during: Callable[[], Any] = lambda: None
    wanted: str | None = None
    before: bool = False

    def run_pass(self) -> list[dict[str, int]]:
        return list(self.pools.run_pass(cast(Any, Work()), {"3f": {}}, 8))

    def settings(self, parts: int, block_rows: int, **options: Any) -> Any:
        """The settings of a chain over partitions."""
        list(self.pools.run_pass(cast(Any, Work()), {f"{n:02x}": {} for n in range(parts)}, block_rows, **options))
        return self.passes[-1][1]


@dataclass(frozen=True)
class Work:
    """What is done; only `absent` matters here."""

    absent: Any = field(default_factory=dict)


def seen(plan: PoolPlan, **fields: Any) -> PoolView:
    stats = PoolStats(plan.name, ready=fields.pop("ready", 1))
    view = PoolView(stats, plan.limit, plan.needed, frozenset(), None, unplaced=False, stuck=False)
    return view._replace(**fields)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The captioner is needed, the voter is not."""
    lineup = load_profile("mini").lineup
    assert lineup.captioner is not None
    roles = [role_of(lineup.captioner), role_of(lineup.voters[0])]
    pools = Pools(FaultSettings(missing_voter="quorum"), roles, 100, {roles[0].name})
    pools.plans = [
        PoolPlan(role.pool, role.name, role.spec, 1.0, 0.0, 0.0, 1, 2, needed=role is roles[0]) for role in roles
    ]
    one = Driver(pools, FakeMonitor([seen(plan) for plan in pools.plans]))
    pools._monitor = one.monitor

    def run_chain(work: Any, stages: list[Stage], parts: Any, settings: Any) -> Iterator[dict[str, int]]:
        one.passes.append((stages, settings))
        if one.before:
            yield {"views": 8, "errors": 0, "saved": 0}
        one.during()
        if one.wanted:
            raise Aborted(one.wanted)
        yield {"views": 8, "errors": 0, "saved": 0}

    def abort(reason: str | None) -> None:
        one.wanted = reason
        if reason is not None:
            one.aborted.append(reason)

    monkeypatch.setattr(pools_module, "run_chain", run_chain)
    monkeypatch.setattr(pools_module, "abort_chain", abort)
    monkeypatch.setattr("caslie_ray.pipeline.pools.ray.get", lambda call, **_: call())
    return one


def names(stages: list[Stage]) -> list[str]:
    return [stage.plan.name for stage in stages]


def test_a_pass_runs_a_stage_per_pool(driver: Driver) -> None:
    driver.pools.poll()
    assert len(driver.run_pass()) == 1
    (stages, settings), *_ = driver.passes
    assert names(stages) == [plan.name for plan in driver.pools.plans]
    assert driver.aborted == []
    assert driver.monitor.begun == 1
    assert settings.no_progress_s >= 2 * FaultSettings().start_timeout_s + FaultSettings().call_timeout_s


def test_a_chain_knows_how_small_its_blocks_are(driver: Driver) -> None:
    """The driver's pools have 100 rows."""
    assert driver.settings(1, 48).block_rows == 48
    assert driver.settings(10, 48).block_rows == 10
    assert driver.settings(200, 48).block_rows == 1
    assert driver.settings(1, 48).call_rows is None
    assert driver.settings(1, 6, small_calls=True).call_rows == 6


def test_a_needed_pool_that_is_down_ends_the_job(driver: Driver) -> None:
    captioner = driver.pools.plans[0]
    driver.monitor.views[0] = seen(captioner, error="captioner is down: CUDA error", ready=0)
    driver.during = driver.pools.poll
    with pytest.raises(PoolDown, match="captioner is down: CUDA error"):
        driver.run_pass()


def test_a_needed_pool_that_went_down_between_passes_ends_the_job_too(driver: Driver) -> None:
    driver.monitor.views[0] = seen(driver.pools.plans[0], error="captioner is down: CUDA error", ready=0)
    driver.pools.poll()
    with pytest.raises(PoolDown, match="captioner is down: CUDA error"):
        driver.run_pass()
    assert driver.passes == []


def test_an_abort_is_repeated_until_the_chain_has_ended(driver: Driver) -> None:
    driver.monitor.views[0] = seen(driver.pools.plans[0], error="captioner is down", ready=0)
    driver.pools.poll()
    driver.pools.poll()
    assert len(driver.aborted) == 2


def test_the_others_continue_without_a_pool_that_never_started(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    voter = driver.pools.plans[1]
    driver.monitor.views[1] = seen(voter, error="phi: 0 of 1 replicas", unplaced=True, ready=0)
    driver.during = driver.pools.poll
    assert len(driver.run_pass()) == 1, "the chain ends, and another one is built at once"
    assert "the others go on without it" in caplog.text
    assert names(driver.passes[1][0]) == [driver.pools.plans[0].name]
    assert len(driver.aborted) == 1
    assert driver.pools._absent == {voter.name: "phi: 0 of 1 replicas"}


def test_a_pool_that_is_down_and_passes_blocks_through_costs_no_pass(driver: Driver) -> None:
    driver.monitor.views[1] = seen(driver.pools.plans[1], error="phi is down", unplaced=False)
    driver.during = driver.pools.poll
    assert len(driver.run_pass()) == 1
    assert driver.aborted == []


def test_another_pass_avoids_a_node_at_fault(driver: Driver) -> None:
    plan = driver.pools.plans[0]
    driver.monitor.views[0] = seen(plan, avoid=frozenset({"a"}))
    driver.during = driver.pools.poll
    assert len(driver.run_pass()) == 1
    assert [settings.avoid for _, settings in driver.passes] == [{}, {plan.key: {"a"}}]
    # Another node was not found in time: the one at fault will do.
    driver.monitor.views[0] = seen(plan, ready=0)
    assert len(driver.run_pass()) == 1
    assert driver.passes[-1][1].avoid == {plan.key: frozenset()}


def test_another_pass_gives_the_blocks_of_lost_replicas_to_others(driver: Driver) -> None:
    plan = driver.pools.plans[0]
    driver.before = True
    driver.monitor.views[0] = seen(plan, stuck=True)
    driver.during = driver.pools.poll
    assert len(driver.run_pass()) == 1
    (why,) = driver.aborted
    assert why.startswith(f"{plan.name}: lost replicas find no room")


def test_a_pass_that_is_aborted_after_a_block_leaves_the_rest_to_the_next_pass(driver: Driver) -> None:
    """Counts of a block are reported once, and the next pass does not read what is done."""
    driver.before = True
    driver.monitor.views[0] = seen(driver.pools.plans[0], avoid=frozenset({"a"}))
    driver.during = driver.pools.poll
    assert len(driver.run_pass()) == 1
    assert len(driver.passes) == 1


def test_a_node_that_is_no_longer_avoided_does_not_end_a_running_chain(driver: Driver) -> None:
    plan = driver.pools.plans[0]
    driver.monitor.views[0] = seen(plan, avoid=frozenset({"a", "b"}))
    driver.pools.poll()
    driver.monitor.views[0] = seen(plan, avoid=frozenset({"a"}))
    driver.during = driver.pools.poll
    assert len(driver.run_pass()) == 1


def test_a_monitor_that_was_lost_ends_the_job(driver: Driver) -> None:
    driver.during = driver.pools.poll
    driver.monitor.lost = True
    with pytest.raises(PoolDown, match="the actor that watches the models was lost; run the job again"):
        driver.run_pass()
    assert driver.pools.poll() == ([], [])
