"""Chains without a job: prompts in blocks, pools of engines that do what the prompts say, and what was written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psutil
import pyarrow as pa
import ray

from caslie_ray.engines import EngineSpec, Request
from caslie_ray.engines.process import ProcessLimits
from caslie_ray.errors import RunError
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.pipeline.chain import ChainSettings, Stage, abort_chain, run_chain
from caslie_ray.pipeline.monitor import start_monitor
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.pool_state import PoolView
from caslie_ray.profiles import FaultSettings
from caslie_ray.prompts import Prompt
from caslie_ray.storage.run import Run, open_run
from tests.engines.process.fakes import ENGINE, FakeEngine

__all__ = ["Lab", "Prompts", "plan", "replicas"]


@dataclass(frozen=True)
class Prompts:
    """Prompts in blocks; the rows of a finished block are a file, named by its first key."""

    run: Run
    prompts: Mapping[str, Sequence[str]]
    block_rows: int = 4
    broken: str = ""
    error: type[Exception] = RunError
    absent: Mapping[str, str] = field(default_factory=dict)

    def read(self, partition: str) -> Iterator[pa.Table]:
        prompts = self.prompts[partition]
        for at in range(0, len(prompts), self.block_rows):
            keys = [f"{partition}-{n:03}" for n in range(at, min(at + self.block_rows, len(prompts)))]
            yield pa.table({"key": keys, "prompt": prompts[at : at + self.block_rows]})
            self._break("read")

    def answer(self, block: pa.Table, names: Sequence[str], ask: Any) -> pa.Table:
        self._break("answer")
        requests = [
            Request(key, Prompt(text))
            for key, text in zip(block["key"].to_pylist(), block["prompt"].to_pylist(), strict=True)
        ]
        for name in names:
            answers = [one.failure.reason if one.failure else one.text for one in ask.generate(name, requests)]
            block = block.append_column(name, pa.array(answers))
        replica = pa.array([os.getpid()] * block.num_rows)
        return block.append_column(f"replica of {names[0]}", replica)

    def write(self, block: pa.Table) -> dict[str, int]:
        self._break("write")
        rows = block.to_pylist()
        (Path(self.run.root) / f"{rows[0]['key']}.json").write_text(json.dumps(rows))
        return {"views": len(rows), "errors": 0, "saved": 0}

    def _break(self, where: str) -> None:
        if where == self.broken:
            raise self.error(f"no {where} today")


def plan(
    name: str, engine: str = ENGINE, limit: int = 1, *, checkpoint: str = "", minimum: int = 1, needed: bool = True
) -> PoolPlan:
    """A pool that takes a tenth of a core per replica."""
    spec = EngineSpec(checkpoint or f"org/{name}", engine, context=1024)
    return PoolPlan(name, name, spec, 0.1, 0.0, 0.0, minimum, limit, needed)


class Lab:
    """Runs chains of these pools; reads what they wrote."""

    def __init__(self, folder: Path, plans: Sequence[PoolPlan], **faults: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.run = open_run(str(folder))
        self.plans = plans
        self.monitor = start_monitor(plans, FaultSettings(load_pause_s=0.1, **faults), grows=False)

    def chain(
        self, work: Prompts, *, no_progress_s: float = 120.0, full_batches: bool = False, **limits: Any
    ) -> Iterator[dict[str, int]]:
        abort_chain(None)
        limits = {"tries": 1, "call_timeout_s": 60.0, "load_tries": 1, **limits}
        settings = ChainSettings(
            ProcessLimits(**limits), work.block_rows, no_progress_s, self.monitor, {},
            call_rows=None if full_batches else work.block_rows,
        )  # fmt: skip
        stages = [Stage(one, (one.name,)) for one in self.plans]
        return run_chain(work, stages, {name: {} for name in work.prompts}, settings)

    def work(self, *prompts: str, **settings: Any) -> Prompts:
        return Prompts(self.run, {"a": prompts}, **settings)

    def rows(self) -> dict[str, dict[str, Any]]:
        files = [json.loads(path.read_text()) for path in Path(self.run.root).glob("*.json")]
        found = {row["key"]: row for rows in files for row in rows}
        assert len(found) == sum(map(len, files)), "a row was written twice"
        return found

    def column(self, name: str) -> list[Any]:
        return [row[name] for _, row in sorted(self.rows().items())]

    def stats(self, number: int = 0) -> PoolStats:
        found: dict[str, PoolStats] = ray.get(self.monitor.stats.remote(), timeout=30)
        return found[self.plans[number].key]

    def messages(self) -> list[str]:
        """What happened since the last call of this or of `view`."""
        found: list[str] = ray.get(self.monitor.quick_status.remote(), timeout=30)[0]
        return found

    def view(self, number: int = 0) -> PoolView:
        return cast(PoolView, ray.get(self.monitor.quick_status.remote(), timeout=30)[1][number])


class ClosingEngine(FakeEngine):
    """Leaves a file beside its checkpoint when it is closed."""

    def __init__(self, spec: EngineSpec) -> None:
        super().__init__()
        self._file = Path(f"{spec.checkpoint}.closed")

    def close(self) -> None:
        self._file.touch()


def load_closing(spec: EngineSpec) -> ClosingEngine:
    return ClosingEngine(spec)


def replicas() -> list[psutil.Process]:
    """The processes of replicas of this test's Ray."""
    return [one for one in psutil.Process().children(recursive=True) if "ModelStage" in _title(one)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
