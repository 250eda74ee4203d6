"""Runs the published loop or bare engines without Ray: one process per core or GPU, each with a part of the views."""

from __future__ import annotations

import multiprocessing
import os
import resource
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from caslie_ray.benchmark._phases import (
    EARLY,
    FULL,
    Phase,
    PhaseResult,
    Timer,
    Vote,
    run_chain,
    run_predictions,
)
from caslie_ray.benchmark._processes import fresh_processes
from caslie_ray.benchmark._timing import Timing
from caslie_ray.benchmark._views import images_of, questions_of, views_of
from caslie_ray.engines import Engine, EngineSpec, load_engine
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.roles import resolve, role_of
from caslie_ray.storage.run import open_run

__all__ = ["Devices", "LocalResult", "LocalTask", "devices_for", "run_locally", "timings"]

_PATIENCE_S = 3600.0
_ALONE = ("schedule=staged", "captions.source=generated")
"""Generated captions, with one model at a time on the machine."""
_barrier: Any = None


@dataclass(frozen=True)
class Devices:
    """The hardware of a system without Ray.

    Attributes:
        processes: number of processes.
        threads: PyTorch threads per process.
        gpus: GPUs per process.
    """

    processes: int
    threads: int
    gpus: int = 0


@dataclass(frozen=True)
class LocalTask:
    """What to measure.

    Attributes:
        profile: path of the profile.
        views: URI of the run with the views; empty for none.
        questions: URI of the run with the instructions; empty for none.
        published: run the published loop instead of the lineup's engines.
        votes: also run the voters.
        early: also time the votes that early exit needs.
        devices: the hardware.
    """

    profile: str
    views: str
    questions: str
    published: bool
    votes: bool
    early: bool
    devices: Devices


@dataclass(frozen=True)
class LocalResult:
    """The results of all processes.

    Attributes:
        imports_s: seconds from the start of the first process until all were ready to load their first model.
        chains: the result of each process on the views; empty without views.
        predictions: the phases of each process on the instructions; empty without instructions.
        peak_mib: sum of the processes' peak memory.
    """

    imports_s: float
    chains: list[PhaseResult]
    predictions: list[list[Phase]]
    peak_mib: float

    @property
    def captions(self) -> dict[str, str]:
        """Captions by view id."""
        return {view: text for chain in self.chains for view, text in chain.captions.items()}

    @property
    def votes(self) -> list[Vote]:
        """All votes, without early exit."""
        return [vote for chain in self.chains for vote in chain.votes]


class _Part(NamedTuple):
    begun: float
    chain: PhaseResult | None
    predictions: list[Phase]
    peak_mib: float


def devices_for(profile: Profile, cpus: int, gpus: int, *, published: bool) -> Devices:
    """Return the hardware: one process per GPU, per group of GPUs if a model needs several, or per core.

    vLLM on a CPU uses all cores, so a lineup with vLLM gets one process.

    Args:
        profile: the profile.
        cpus: cores of this machine.
        gpus: GPUs of this machine.
        published: whether this is the published loop, which never uses vLLM.
    """
    models = [profile.lineup.captioner, *profile.lineup.voters, profile.lineup.base]
    most = max(model.by_itself().resources.gpus for model in models)
    if most > 0:
        each = 1 if published else max(1, int(most))
        processes = max(1, gpus // each)
        return Devices(processes, max(1, cpus // processes), each)
    on_vllm = any(model.engine in ("vllm", "auto") for model in models)
    if on_vllm and not published:
        return Devices(1, cpus)
    return Devices(cpus, 1)


def run_locally(task: LocalTask) -> LocalResult:
    """Run a task in new processes.

    Raises:
        EngineError: a model cannot be loaded.
        RuntimeError: a process died, or timed out waiting for the others.
    """
    count = task.devices.processes
    started = time.time()
    barrier = multiprocessing.get_context("spawn").Barrier(count)
    with fresh_processes(count, _set_barrier, barrier) as pool:
        futures = [pool.submit(_work, task, number) for number in range(count)]
        failures = [failure for one in futures if (failure := one.exception()) is not None]
        if failures:
            # If one fails, the others only report a broken barrier.
            raise next((one for one in failures if not isinstance(one, threading.BrokenBarrierError)), failures[0])
        parts = [one.result() for one in futures]
    return LocalResult(
        max(part.begun for part in parts) - started,
        [part.chain for part in parts if part.chain is not None],
        [part.predictions for part in parts if part.predictions],
        sum(part.peak_mib for part in parts),
    )


def _set_barrier(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _work(task: LocalTask, number: int) -> _Part:
    """Run one process's part."""
    try:
        return _run_part(task, number)
    except BaseException:
        _barrier.abort()
        raise


def _run_part(task: LocalTask, number: int) -> _Part:
    devices = task.devices
    if devices.gpus:
        first = number * devices.gpus
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first, first + devices.gpus)))
    import torch  # only after CUDA_VISIBLE_DEVICES is set
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(devices.threads)
    profile = load_profile(task.profile, [*_ALONE, f"votes.rule={'majority' if task.votes else 'always'}"])
    load: Callable[[EngineSpec], Engine] = load_engine
    if task.published:
        from caslie_ray.benchmark._published_loop import load
    timer = Timer(load, _barrier, _PATIENCE_S)
    begun = time.time()
    chain: PhaseResult | None = None
    phases: list[Phase] = []
    if task.views:
        run = open_run(task.views)
        views = views_of(run)[number :: devices.processes]
        chain = run_chain(views, images_of(run), resolve(profile), timer, early=task.early)
    if task.questions:
        requests = questions_of(open_run(task.questions))[number :: devices.processes]
        phases = run_predictions(requests, role_of(profile.lineup.base.by_itself()), timer)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return _Part(begun, chain, phases, peak_mib)


def timings(result: LocalResult, views: int) -> dict[str, Timing]:
    """Return the timings of a task by name: captioning, voting, chain, chain early and prediction.

    All processes start a phase together; it ends with the slowest of them.

    Args:
        result: the task's result.
        views: number of views.
    """
    phases = list(zip(*(chain.phases for chain in result.chains), strict=True))
    captioning = [group for group in phases if group[0].kind == "generate"]
    voting = [group for group in phases if group[0].kind == "choose" and group[0].votes == FULL]
    early = [group for group in phases if group[0].votes == EARLY]
    named = {}
    if result.chains:
        named["captioning"] = _timing(captioning, views, result)
        named["voting"] = _timing(voting, _rows(voting), result)
        named["chain"] = _timing([*captioning, *voting], views, result)
    if early:
        named["chain early"] = _timing([*captioning, *early], views, result)
    if result.predictions:
        answering = list(zip(*result.predictions, strict=True))
        named["prediction"] = _timing(answering, _rows(answering), result)
    return named


def _rows(groups: Sequence[Sequence[Phase]]) -> int:
    return sum(phase.rows for group in groups for phase in group)


def _timing(groups: Sequence[Sequence[Phase]], units: int, result: LocalResult) -> Timing:
    """Return the timing of consecutive phases, each with one entry per process."""
    if not units:
        return Timing(0, None, 0.0, reason="there were no requests")
    seconds = sum(max(phase.seconds for phase in group) for group in groups)
    starts = [max(phase.load_s + phase.first_s for phase in group) for group in groups]
    start = result.imports_s + sum(starts)
    flat = [phase for group in groups for phase in group]
    processes = len(groups[0])
    rate = units / seconds
    details = {
        "memory_mib": {"processes": round(result.peak_mib, 1)},
        "processes": processes,
        "rate_a_process": round(rate / processes, 3),
        "cpu_ms_a_unit": round(1000 * sum(phase.cpu_s for phase in flat) / units, 3),
        "tokens": sum(phase.prompt_tokens + phase.new_tokens for phase in flat),
    }
    return Timing(units, rate, start + seconds, result.imports_s + starts[0], start, details=details)
