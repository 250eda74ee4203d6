"""Measures a run's captions and verdicts, and writes the page that shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from caslie_ray.captioning import CONTEXT_FREE_FOLDER, context_free_job
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.errors import RunError
from caslie_ray.evaluation._collect import Collected, Judged, collect, images_of, splits_of
from caslie_ray.evaluation._contrasts import contrasts_of, views_of
from caslie_ray.evaluation._figures import facts_of, figures_of
from caslie_ray.evaluation._result_figures import curves_of, plots_of
from caslie_ray.evaluation._results import TABLES_PATH, Measured, measure, summary_of, write_results
from caslie_ray.evaluation._summary import describe
from caslie_ray.evaluation._sums import Sums
from caslie_ray.evaluation._truth import KnownView, read_truth
from caslie_ray.evaluation._verdict_bits import predictions_of_bits
from caslie_ray.evaluation.page import PAGE_PATH, Plot, ShownSample, render_page, write_page
from caslie_ray.monitoring.progress import Progress
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run

__all__ = ["evaluate", "plan_evaluation"]

_SAMPLES = 400  # on the page, of those on which variants differ
_DISTRIBUTE_FROM = 50_000  # views; fewer are read here in less time than Ray takes to start


def evaluate(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, Any]:
    """Measure a run, write its page, and return the job's summary.

    What needs no truth is measured of every run: agreement of the voters, captions used, errors. Where the truth
    is known (`evaluation.truth`), captions, votes and verdicts are held against it.

    The answers of models, where `predict` has any, are measured by task, variant and split, and written as
    `report/metrics.json` and as tables.

    Raises:
        RunError: the run has no captions, its store refuses, or the truth is of another data set.
        EngineError: the captioner of the context-free captions cannot be found.
        PoolDown: it cannot be started.
    """
    begun = time.monotonic()
    if not run.files("captions"):
        raise RunError(f"{run.label} has no captions: run caption first")
    majority, votes = profile.votes.rule == "majority", profile.votes
    voters = tuple(model.name for model in profile.lineup.voters) if majority else ()
    truth = read_truth(run, profile)
    compared = truth is not None and _compares_context(profile)
    free = _context_free(run, profile, quiet=quiet) if compared else {}
    judged = Judged(
        frozenset(voters),
        1.0 if votes.schedule == "full" else votes.audit,
        _sets(profile.evaluation.voter_sets, voters),
        truth,
        splits_of(run, truth) if truth is not None else {},
        free,
        profile.evaluation.page_views,
    )
    found = _collect(run, judged, quiet=quiet)
    if not found.views:
        raise RunError(f"{run.label} has no captioned views: run caption first")
    summary = {
        "job": "evaluate",
        "run": run.label,
        "profile": profile.name,
        "views": found.views,
        "voters": list(voters),
        "figures": describe(found.sums, judged.sets, profile.evaluation.resamples),
        "views_without_row": found.waiting,
        "context_free_captions": len(free) if compared else None,
        "page": run.below(PAGE_PATH).label,
    }
    fused = run.read_json("summary/fuse.json") or {}
    of_bits = predictions_of_bits(fused.get("verdict_bits", {}), profile.evaluation.resamples)
    if of_bits:
        summary["verdict_bits"] = of_bits
    measured = _measure(run, profile, of_bits) if run.files("predictions") else None
    if measured is not None:
        write_results(run, measured)
        summary["results"] = summary_of(measured)
        summary["unanswered"] = measured.missing
        summary["not_measured"] = measured.left_out
        summary["tables"] = [run.below(f"{TABLES_PATH}.{form}").label for form in ("md", "tex")]
    others = [view.view_id for view in found.worst if view.view_id not in judged.splits]
    splits = {**judged.splits, **(splits_of(run, others) if others else {})}
    _write_page(run, summary, found, splits, truth, measured)
    summary["seconds"] = round(time.monotonic() - begun, 2)
    run.write_json("summary/evaluate.json", summary)
    return summary


def plan_evaluation(run: Run, profile: Profile) -> list[str]:
    """Return what an evaluation would do, as lines.

    Raises:
        RunError: the run has no views, or the truth is of another data set.
    """
    if not run.files("views"):
        raise RunError(f"{run.label} has no views: run ingest first")
    views = sum(run.count_rows(path) for path in run.files("captions"))
    truth = read_truth(run, profile)
    known = f"known of {len(truth):,} views" if truth is not None else "not known: agreement and page only"
    lines = [f"reads            {views:,} caption rows", f"truth            {known}"]
    models = "none"
    if truth is not None and _compares_context(profile):
        models = (
            f"the captioner, once an image without its context (C.1); {run.below(CONTEXT_FREE_FOLDER).label} keeps that"
        )
    return [*lines, f"models           {models}", f"writes           {run.below(PAGE_PATH).label}"]


def _measure(run: Run, profile: Profile, of_bits: Mapping[str, Any]) -> Measured | None:
    from caslie_ray.prediction import answerers_of  # torch takes seconds; captions alone need none

    _, answerers = answerers_of(run, profile, partly=True)
    return measure(run, answerers, profile.prediction.splits, profile.evaluation.resamples, of_bits)


def _context_free(run: Run, profile: Profile, *, quiet: bool) -> dict[str, str]:
    """The captions without context by view id; what the run holds of them is not computed again."""
    job = context_free_job(run, profile, quiet=quiet)
    job.execute()
    rows = job.run.read("captions", ["view_id", "caption"])
    found = zip(rows["view_id"].to_pylist(), rows["caption"].to_pylist(), strict=True)
    return {view_id: caption for view_id, caption in found if caption is not None}


def _compares_context(profile: Profile) -> bool:
    return profile.evaluation.context_free and profile.captions.context == "conditioned"


def _sets(named: Sequence[tuple[str, ...]], voters: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The sets that the profile names, and the whole lineup."""
    if not voters:
        return ()
    return (*named, *(() if any(set(names) == set(voters) for names in named) else (voters,)))


def _collect(run: Run, judged: Judged, *, quiet: bool) -> Collected:
    listed = {table: run.by_partition(table) for table in ("views", "captions")}
    partitions = sorted(listed["views"])
    rows = sum(run.count_rows(path) for paths in listed["views"].values() for path in paths)
    found = Collected(Sums(), [])

    def read(partition: str) -> Collected:
        here = run.with_file_listing({table: files.get(partition, []) for table, files in listed.items()})
        return collect(partition, here, judged)

    with Progress("evaluate", len(partitions), "partitions", quiet=quiet) as progress:
        for part in map_partitions(read, partitions, distributed=rows >= _DISTRIBUTE_FROM):
            found.merge(part, judged.shown)
            progress.add(1)
    return found


def _write_page(
    run: Run,
    summary: Mapping[str, Any],
    found: Collected,
    splits: Mapping[str, tuple[str, ...]],
    truth: Mapping[str, KnownView] | None,
    measured: Measured | None,
) -> None:
    kept = sorted(found.worst, key=lambda view: view.view_id)
    views = [replace(view, splits=splits.get(view.view_id, ())) for view in kept]
    plots: list[Plot] = list(figures_of(summary["figures"]))
    samples: list[ShownSample] = []
    if measured is not None:
        plots = [*plots_of(measured), *curves_of(run), *plots]
        samples = contrasts_of(run, measured, _SAMPLES)
        here = {view.view_id for view in views}
        views += views_of(run, {view for sample in samples for view in sample.views} - here, truth)
    images = images_of(run, dict.fromkeys(view.image_id for view in views))
    page = render_page(
        "Results" if measured is not None else "Captions and verdicts",
        facts_of(summary, run.label),
        plots,
        views,
        images,
        left_out=found.views - len(views),
        samples=samples,
    )
    write_page(run, page)
