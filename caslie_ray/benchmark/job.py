"""The job `benchmark`: measures, prints the table, and writes the files that were asked for."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from caslie_ray.benchmark.options import read_options
from caslie_ray.benchmark.plot import plot
from caslie_ray.benchmark.running import benchmark, plan_benchmark
from caslie_ray.benchmark.table import show
from caslie_ray.cli import COMPLETE, Arguments
from caslie_ray.errors import JobError
from caslie_ray.jobs import print_summary

__all__ = ["benchmark_job"]

log = logging.getLogger(__name__)


def benchmark_job(arguments: Arguments) -> int:
    """Measure the jobs against their alternatives.

    Raises:
        JobError: one of this project's jobs failed; the other measurements are written.
    """
    given = arguments.options
    options = read_options(given)
    if arguments.plan:
        print_summary("benchmark", list(plan_benchmark(arguments.profile, options)))
        return COMPLETE
    if not arguments.kept and os.environ.get("RAY_ADDRESS"):
        log.warning("without --run the tables are on this machine only: on a cluster, give a store with --run")
    found = benchmark(arguments.run, arguments.profile, options, quiet=arguments.quiet)
    print_summary("benchmark", [*show(found.entries, found.scale, found.parts, found.machine)])
    text = json.dumps(found.entries, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if given.json:
        Path(given.json).write_text(text, encoding="utf-8")
    if given.plot:
        Path(given.plot).write_text(plot(found.entries), encoding="utf-8")
    if arguments.kept:
        arguments.run.write_json(
            "summary/benchmark.json",
            {"job": "benchmark", "run": arguments.run.label, "machine": found.machine, "entries": found.entries},
        )
        arguments.run.put(arguments.run.path("report", "benchmark.svg"), plot(found.entries).encode())
    if found.failed:
        raise JobError(f"{', '.join(found.failed)} did not complete; the reasons are in the table")
    return COMPLETE
