"""Evaluates a run: counts in tasks, figures with intervals, tables, and the report page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from caslie_ray.captioning import CONTEXT_FREE_FOLDER, context_free_job
from caslie_ray.errors import RunError
from caslie_ray.evaluation._facts import facts_of
from caslie_ray.evaluation.answers import plots as answer_plots
from caslie_ray.evaluation.answers.measure import TABLES_PATH, Measured, measure, summary_of, write_results
from caslie_ray.evaluation.answers.samples import find_samples
from caslie_ray.evaluation.captions import plots as caption_plots
from caslie_ray.evaluation.captions.counts import CaptionCounts, CountOptions, count_captions
from caslie_ray.evaluation.captions.summary import describe
from caslie_ray.evaluation.captions.truth_files import TruthFiles, check_truth, find_truth
from caslie_ray.evaluation.captions.views import find_splits, find_views
from caslie_ray.evaluation.report.lookup import find_thumbnails
from caslie_ray.evaluation.report.page import PAGE_PATH, render_page, write_page
from caslie_ray.evaluation.report.plots import Plot
from caslie_ray.evaluation.report.shown import ShownSample
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.verdict_bits import predictions_of_bits

__all__ = ["evaluate", "plan_evaluation"]


def evaluate(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, Any]:
    """Evaluate a run, write its report page, and return the job's summary.

    Every run has figures on agreement of the voters, captions used and errors. If the truth is known
    (`evaluation.truth`), captions, votes and verdicts are compared with it. The answers of models, if `predict` has
    any, are measured by task, variant and split (section 6), and written as ``report/metrics.json`` and as tables.

    This process holds counts, outcomes of answers (a byte or two each) and what the page shows. Tables are read in
    Ray tasks; runs with less than 50,000 rows are read here by the same functions.

    Raises:
        RunError: the run has no captions, a table cannot be read or written, or the truth is of another data set.
        EngineError: the captioner of the captions without context cannot be found.
        PoolDown: it cannot be started.
    """
    begun = time.monotonic()
    if not run.files("captions"):
        raise RunError(f"{run.label} has no captions: run caption first")
    truth = find_truth(run, profile)
    if truth is not None:
        check_truth(run, truth)
    compared = truth is not None and _compares_context(profile)
    voters = tuple(model.name for model in profile.lineup.voters) if profile.votes.rule == "majority" else ()
    options = CountOptions(
        voters=frozenset(voters),
        audit=1.0 if profile.votes.schedule == "full" else profile.votes.audit,
        voter_sets=_voter_sets(profile.evaluation.voter_sets, voters),
        truth=truth,
        context_free=_context_free(run, profile, quiet=quiet) if compared else None,
        page_views=profile.evaluation.page_views,
    )
    found = count_captions(run, options, quiet=quiet)
    if not found.views:
        raise RunError(f"{run.label} has no captioned views: run caption first")
    summary = {
        "job": "evaluate",
        "run": run.label,
        "profile": profile.name,
        "views": found.views,
        "voters": list(voters),
        "figures": describe(found.sums, options.voter_sets, profile.evaluation.resamples),
        "views_without_row": found.without_row,
        "context_free_captions": found.context_free if compared else None,
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
    _write_page(run, summary, found, truth, measured)
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
    rows = sum(run.count_rows(path) for path in run.files("captions"))
    truth = find_truth(run, profile)
    known = "not known: agreement and page only"
    if truth is not None:
        check_truth(run, truth)
        known = f"known of {truth.folder.count_rows(truth.views):,} images of samples"
    models = "none"
    if truth is not None and _compares_context(profile):
        models = f"the captioner, once per image without context (C.1), into {run.below(CONTEXT_FREE_FOLDER).label}"
    return [
        f"reads            {rows:,} caption rows",
        f"truth            {known}",
        f"models           {models}",
        f"writes           {run.below(PAGE_PATH).label}",
    ]


def _measure(run: Run, profile: Profile, of_bits: Mapping[str, Any]) -> Measured | None:
    from caslie_ray.prediction import answerers_of  # imports torch, which takes seconds

    _, answerers = answerers_of(run, profile, partly=True)
    return measure(run, answerers, profile.prediction.splits, profile.evaluation.resamples, of_bits)


def _context_free(run: Run, profile: Profile, *, quiet: bool) -> Run:
    """Write the missing captions without context; return the run that holds them."""
    job = context_free_job(run, profile, quiet=quiet)
    job.execute()
    return job.run


def _compares_context(profile: Profile) -> bool:
    return profile.evaluation.context_free and profile.captions.context == "conditioned"


def _voter_sets(named: Sequence[tuple[str, ...]], voters: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The sets that the profile names, and the full lineup."""
    if not voters:
        return ()
    return (*named, *(() if any(set(names) == set(voters) for names in named) else (voters,)))


def _write_page(
    run: Run, summary: Mapping[str, Any], found: CaptionCounts, truth: TruthFiles | None, measured: Measured | None
) -> None:
    plots: list[Plot] = list(caption_plots.plots_of(summary["figures"]))
    samples: list[ShownSample] = []
    if measured is not None:
        plots = [*answer_plots.plots_of(measured), *answer_plots.curves_of(run), *plots]
        if measured.contrasts:
            model, variants = measured.results.models[0], measured.results.variants
            samples = find_samples(run, measured.contrasts, model, variants)
    worst = {view.view_id for view in found.worst}
    others = {view for sample in samples for view in sample.views} - worst
    splits = find_splits(run, worst | others)
    views = find_views(run, worst, truth, splits, among={view.partition for view in found.worst})
    if others:
        views += find_views(run, others, truth, splits)
    page = render_page(
        "Results" if measured is not None else "Captions and verdicts",
        facts_of(summary, run.label),
        plots,
        views,
        find_thumbnails(run, {view.image_id for view in views}),
        left_out=found.views - len(views),
        samples=samples,
    )
    write_page(run, page)
