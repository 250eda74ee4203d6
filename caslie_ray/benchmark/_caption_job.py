"""Runs this project's jobs in subprocesses and measures their rows, memory and CPU time from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import caslie_ray
from caslie_ray.benchmark._resource_usage import ProcessTree, ResourceMonitor, RowCounter
from caslie_ray.benchmark._timing import Timing, steady_seconds
from caslie_ray.storage.run import Run

__all__ = ["Job", "JobResult", "caption_timing", "environment", "run_jobs", "terminate"]

_END_S = 30.0
_GONE_S = 60.0
_LINES = 3


@dataclass(frozen=True)
class Job:
    """One job to run.

    Attributes:
        name: the job, such as `caption`.
        run: its run.
        profile: path of its profile.
        settings: overrides of the profile.
        more: additional command line arguments.
    """

    name: str
    run: Run
    profile: str
    settings: Sequence[str] = ()
    more: Sequence[str] = ()

    @property
    def argv(self) -> list[str]:
        """Its command line arguments."""
        settings = ["--set", *self.settings] if self.settings else []
        return ["--run", self.run.uri, "--profile", self.profile, "--quiet", *settings, *self.more]


@dataclass(frozen=True)
class JobResult:
    """The measurements of one job.

    Attributes:
        failure: why it failed; empty if it completed.
        begin: start of its process, or end of the job before it in the same process, in seconds since 1970.
        end: when it completed.
        events: per table, times and numbers of rows so far.
        memory_mib: peaks of driver, workers, ray (Ray's own processes) and object_store.
        cpu_steady_s: CPU seconds of all its processes between first and last row.
        resources: resources of the Ray cluster.
    """

    failure: str
    begin: float = 0.0
    end: float = 0.0
    events: Mapping[str, Sequence[tuple[float, int]]] = field(default_factory=dict)
    memory_mib: Mapping[str, float | None] = field(default_factory=dict)
    cpu_steady_s: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    def rows_at(self) -> tuple[float, float] | None:
        """Return the times of the first and the last rows; None without rows."""
        moments = [at for events in self.events.values() for at, _ in events]
        return (min(moments), max(moments)) if moments else None


def environment() -> dict[str, str]:
    """Return the environment of a subprocess that imports this package."""
    here = str(Path(caslie_ray.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}


def terminate(process: subprocess.Popen[str]) -> None:
    """Send SIGTERM to a process; kill it if it does not end."""
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_jobs(jobs: Sequence[Job], folder: Path) -> list[JobResult]:
    """Run jobs one after the other in one process; the first includes the start of Python and Ray.

    Args:
        jobs: the jobs.
        folder: a local folder for exchanged files.
    """
    spec, result, log = folder / "spec.json", folder / "result.json", folder / "output.txt"
    spec.write_text(json.dumps([{"name": job.name, "argv": job.argv} for job in jobs]))
    result.unlink(missing_ok=True)
    counters = [RowCounter(job.run) for job in jobs]
    started = time.time()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "caslie_ray.benchmark._job_process", str(spec), str(result)],
            env=environment(), stdout=output, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        processes = ProcessTree(process.pid)
        try:
            with ResourceMonitor(counters, processes) as watcher:
                process.wait()
        finally:
            if process.poll() is None:
                terminate(process)
        processes.wait(_GONE_S)
    if process.returncode or not result.exists():
        reason = _last_lines(log) or f"the process ended with exit code {process.returncode}"
        return [JobResult(reason) for _ in jobs]
    report = json.loads(result.read_text())
    results = []
    for number, (done, watch) in enumerate(zip(report["jobs"], counters, strict=True)):
        begin = started if not number else done["begin"]
        if done["code"]:
            results.append(JobResult(f"exit code {done['code']}: {_last_lines(log)}", begin, done["end"]))
            continue
        results.append(_result(watch, watcher, report, begin, done["end"]))
    return results


def _result(
    watch: RowCounter, watcher: ResourceMonitor, report: Mapping[str, Any], begin: float, end: float
) -> JobResult:
    memory = watcher.peaks(begin, end)
    exported = [one for one in report["exported"] if begin <= one[0] <= end]
    memory["object_store"] = round(max(store for _, store, _ in exported), 1) if exported else None
    joined = bool(os.environ.get("RAY_ADDRESS"))
    if joined:  # the processes of a joined cluster are not ours
        memory["workers"] = round(max(workers for *_, workers in exported), 1) if exported else None
        memory["ray"] = None
    events = {table: seen for table, seen in watch.events.items() if seen}
    resources = {name: value for name, value in report["resources"].items() if name in ("CPU", "GPU")}
    result = JobResult("", begin, end, events, memory, None, resources)
    between = None if joined else result.rows_at()
    cpu = watcher.cpu_between(*between) if between and between[1] > between[0] else None
    return JobResult("", begin, end, events, memory, cpu, resources)


def caption_timing(result: JobResult, units: int, session: Mapping[str, Any]) -> Timing:
    """Return the timing of a job that writes rows.

    Args:
        result: its measurements.
        units: number of views, votes or answers.
        session: `this_session` of the job's summary.
    """
    if result.failure:
        return Timing(units, None, 0.0, reason=result.failure)
    seconds = result.end - result.begin
    steady = steady_seconds(list(result.events.values()))
    between = result.rows_at()
    models = session.get("models", {})
    details: dict[str, Any] = {
        "memory_mib": dict(result.memory_mib),
        "busy_share": _busy(models, steady),
        "load_s": {name: model["load_seconds"] for name, model in models.items()},
        "resources": dict(result.resources),
        "calls": session.get("model_calls"),
    }
    counted = _counted_between(result)
    if result.cpu_steady_s is not None and counted:
        details["cpu_ms_a_view"] = round(1000 * result.cpu_steady_s / counted, 3)
    return Timing(
        units,
        units / steady if steady else None,
        seconds,
        first_row_s=between[0] - result.begin if between else None,
        start_s=max(0.0, seconds - steady) if steady else None,
        reason="" if steady else "all rows came at once: too few views for a rate",
        details=details,
    )


def _counted_between(result: JobResult) -> int | None:
    """Return the rows after the first ones, for a job that writes one table; otherwise None."""
    if len(result.events) != 1:
        return None
    (events,) = result.events.values()
    return events[-1][1] - events[0][1] or None


def _busy(models: Mapping[str, Any], steady: float | None) -> dict[str, float] | None:
    """Return busy seconds per second of steady state by model; above 1 with several busy replicas."""
    if not models or not steady:
        return None
    return {name: round(model["busy_seconds"] / steady, 3) for name, model in models.items()}


def _last_lines(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return errors[-1] if errors else " | ".join(lines[-_LINES:])
