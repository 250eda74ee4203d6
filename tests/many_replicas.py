"""How a chain fares with many replicas and many blocks in flight, on an engine that only waits.

Run as:
    python -m tests.many_replicas --replicas 40 --slots 16 --seconds 20 --rounds 6

Each replica answers `slots` batches of 8 rows at the same time and takes `seconds` for each, as a model on a GPU would.
Printed: batches per second in the middle of the run, and their share of what the replicas could do.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray

from caslie_ray.benchmark._null_engine import NullEngine
from caslie_ray.cluster.connection import quiet_ray_data
from caslie_ray.engines import EngineSpec, Generation, Request
from caslie_ray.engines.process import ProcessLimits
from caslie_ray.pipeline.chain import ChainSettings, Stage, run_chain
from caslie_ray.pipeline.monitor import start_monitor
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.profiles import FaultSettings
from caslie_ray.prompts import Prompt
from caslie_ray.storage.run import Run, open_run

_ROWS = 8
_SECONDS = "CASLIE_TEST_BATCH_S"


class WaitingEngine(NullEngine):
    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        time.sleep(float(os.environ[_SECONDS]))
        return super().generate(requests)


def load(spec: EngineSpec) -> WaitingEngine:
    return WaitingEngine()


@dataclass(frozen=True)
class Wide(PoolPlan):
    """A pool whose replicas answer many batches at once."""

    at_once: int = 1

    @property
    def slots(self) -> int:
        return self.at_once


@dataclass(frozen=True)
class Batches:
    """A number of batches per partition."""

    run: Run
    batches: int
    absent: dict[str, str] = field(default_factory=dict)

    def read(self, partition: str) -> Iterator[pa.Table]:
        for number in range(self.batches):
            yield pa.table({"key": [f"{partition}-{number}-{row}" for row in range(_ROWS)]})

    def answer(self, block: pa.Table, names: Sequence[str], ask: Any) -> pa.Table:
        requests = [Request(key, Prompt("what is sold?")) for key in block["key"].to_pylist()]
        return block.append_column("answer", [[one.text for one in ask.generate(names[0], requests)]])

    def write(self, block: pa.Table) -> dict[str, int]:
        return {"views": block.num_rows, "errors": 0, "saved": 0}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("replicas", 40), ("slots", 16), ("rounds", 6), ("seconds", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(argv)
    os.environ[_SECONDS] = str(options.seconds)
    at_once = options.replicas * options.slots
    ray.init("local", num_cpus=options.replicas, include_dashboard=False, log_to_driver=False)
    quiet_ray_data()
    spec = EngineSpec("org/waiting", "tests.many_replicas:load", context=1024)
    plan = Wide("waiting", "waiting", spec, 1.0, 0.0, 0.0, options.replicas, options.replicas, at_once=options.slots)
    settings = ChainSettings(
        ProcessLimits(tries=1, call_timeout_s=600.0),
        _ROWS,
        600.0,
        start_monitor([plan], FaultSettings(), grows=False),
        {},
        call_rows=_ROWS,
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Batches(open_run(folder), -(-at_once * options.rounds // 64))
        parts: dict[str, dict[str, list[str]]] = {f"{number:02x}": {} for number in range(64)}
        ends = [time.monotonic() for _ in run_chain(work, [Stage(plan, ("waiting",))], parts, settings)]
    # Replicas start one after the other, and the last batches end with some of them idle.
    middle = ends[len(ends) // 2 : -at_once]
    rate, possible = len(middle) / (middle[-1] - middle[0]), at_once / options.seconds
    print(f"{len(ends)} batches; {rate:.1f} of {possible:.1f} batches per second ({rate / possible:.0%})")


if __name__ == "__main__":
    main()
