"""The jobs: each calls the library, prints the summary, and returns the exit code."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.fs as pafs

from caslie_ray.captioning import caption, caption_status, context_free_job, plan_captions
from caslie_ray.captioning.summary_lines import summary_lines as caption_lines
from caslie_ray.cli import COMPLETE, UNFINISHED, Arguments
from caslie_ray.dataset import ingest, plan_ingest, preview_prompts, unusable
from caslie_ray.dataset.summary_lines import summary_lines as ingest_lines
from caslie_ray.errors import JobError, RunError
from caslie_ray.evaluation import evaluate, plan_evaluation
from caslie_ray.evaluation.summary_lines import summary_lines as evaluate_lines
from caslie_ray.fusion import fuse, plan_fusion
from caslie_ray.fusion.summary_lines import summary_lines as fuse_lines
from caslie_ray.miniature import WorldSize, write_dataset
from caslie_ray.monitoring.progress import clock
from caslie_ray.pinning import pin_profile
from caslie_ray.pipeline.pools import check_models
from caslie_ray.profiles import Model, Profile
from caslie_ray.roles import captioning_models, engine_lines, needed_names, resolve
from caslie_ray.storage.run import Run

__all__ = [
    "caption_job", "evaluate_job", "fuse_job", "ingest_job", "pipeline_job", "predict_job", "print_summary",
    "train_job",
]  # fmt: skip

log = logging.getLogger(__name__)


def ingest_job(arguments: Arguments) -> int:
    """Read the sources into samples or products, images, views and rejects.

    Raises:
        JobError: no row of the sources could be used; the tables give the reasons.
    """
    if arguments.plan:
        if arguments.sources:
            print_summary("ingest", plan_ingest(arguments.run, arguments.sources, arguments.profile).lines())
            if rows := getattr(arguments.options, "show_prompts", 0):
                print_summary("prompts", preview_prompts(arguments.run, arguments.sources, arguments.profile, rows))
        else:
            print_summary("ingest", ["reads            the miniature world, which it draws", "models           none"])
        return COMPLETE
    sources = arguments.sources or (_miniature_world(arguments),)
    summary = ingest(arguments.run, sources, arguments.profile, quiet=arguments.quiet).as_dict()
    arguments.run.write_json("summary/ingest.json", {"job": "ingest", "run": arguments.run.label, **summary})
    print_summary("ingest", ingest_lines(summary))
    if not summary["samples"] and not summary["products"]:
        raise JobError(unusable(summary, arguments.run.label))
    return COMPLETE


def caption_job(arguments: Arguments) -> int:
    """Caption the views and vote on the captions."""
    if arguments.status:
        print_summary("caption", caption_status(arguments.run).lines())
        return COMPLETE
    arguments = _pinned(arguments, captioning_models(arguments.profile))
    if arguments.plan:
        plan = plan_captions(arguments.run, arguments.profile, quiet=arguments.quiet)
        print_summary("caption", plan.lines())
        return COMPLETE
    result = caption(arguments.run, arguments.profile, quiet=arguments.quiet)
    print_summary("caption", caption_lines(result.summary))
    missing = result.missing
    if not missing and arguments.profile.experiments.context_free:
        free = context_free_job(arguments.run, arguments.profile, quiet=arguments.quiet).execute()
        print_summary("caption without context", caption_lines(free.summary))
        missing = free.missing
    if missing:
        print(f"{missing} views have no row yet: run the same command again")
        return UNFINISHED
    return COMPLETE


def fuse_job(arguments: Arguments) -> int:
    """Write the instructions."""
    if arguments.plan:
        print_summary("fuse", plan_fusion(arguments.run, arguments.profile))
        return COMPLETE
    print_summary("fuse", fuse_lines(fuse(arguments.run, arguments.profile, quiet=arguments.quiet)))
    return COMPLETE


def train_job(arguments: Arguments) -> int:
    """Fine-tune uniM³.

    Raises:
        JobError: training cannot go on.
    """
    from caslie_ray.training import TrainingError, plan_training, train  # imports torch, which takes seconds
    from caslie_ray.training.summary_lines import summary_lines as train_lines

    arguments = _pinned(arguments, [arguments.profile.lineup.base])
    if arguments.plan:
        print_summary("train", plan_training(arguments.run, arguments.profile))
        return COMPLETE
    try:
        print_summary("train", train_lines(train(arguments.run, arguments.profile, quiet=arguments.quiet)))
    except TrainingError as error:
        raise JobError(str(error)) from error
    return COMPLETE


def predict_job(arguments: Arguments) -> int:
    """Answer the instructions with the models."""
    from caslie_ray.prediction import plan_prediction, predict  # as above
    from caslie_ray.prediction.summary_lines import summary_lines as predict_lines

    arguments = _pinned(arguments, [arguments.profile.lineup.base])
    if arguments.plan:
        print_summary("predict", plan_prediction(arguments.run, arguments.profile))
        return COMPLETE
    result = predict(arguments.run, arguments.profile, quiet=arguments.quiet)
    print_summary("predict", predict_lines(result.summary))
    if result.missing:
        print(f"{result.missing} questions have no answer yet: run the same command again")
        return UNFINISHED
    return COMPLETE


def evaluate_job(arguments: Arguments) -> int:
    """Measure captions, verdicts and answers, and write the page."""
    arguments = _pinned(arguments, _evaluated(arguments.run, arguments.profile))
    if arguments.plan:
        print_summary("evaluate", plan_evaluation(arguments.run, arguments.profile))
        return COMPLETE
    print_summary("evaluate", evaluate_lines(evaluate(arguments.run, arguments.profile, quiet=arguments.quiet)))
    return COMPLETE


def pipeline_job(arguments: Arguments) -> int:
    """Run all jobs in order, up to the first that does not complete.

    Raises:
        EngineError: a checkpoint cannot be found, or the base's engine cannot apply its adapters.
    """
    from caslie_ray.training import base_of  # as above

    arguments = _pinned(arguments, [*captioning_models(arguments.profile), arguments.profile.lineup.base])
    base = base_of(arguments.profile)  # fails before anything is computed
    lineup = resolve(arguments.profile)
    if arguments.run.read_json(_SUMMARY) is None:
        check_models([*lineup.roles, base], {*needed_names(lineup, arguments.profile.faults), base.name})
    if arguments.plan:
        print_summary("engines", engine_lines([*lineup.roles, base]))
    if arguments.plan and not arguments.run.files("views"):
        return ingest_job(arguments)
    begun = time.monotonic()
    took: dict[str, float] = {}
    for name, job in _PIPELINE:
        if name == "fuse" and _is_catalogue(arguments.run):
            print("\nproducts have no true answers to train on: caslie export writes their captions")
            return COMPLETE
        since = time.monotonic()
        try:
            code = job(arguments)
        except RunError as missing:
            if not arguments.plan:
                raise
            print_summary(name, [f"not known yet    {missing}"])
            continue
        if code != COMPLETE:
            return code
        took[name] = round(time.monotonic() - since, 2)
    if not arguments.plan:
        seconds = round(time.monotonic() - begun, 2)
        summary = {"job": "pipeline", "run": arguments.run.label, "seconds": seconds, "seconds_by_job": took}
        arguments.run.write_json(_SUMMARY, summary)
        print(f"\npipeline complete in {clock(seconds)}: {arguments.run.label}")
    return COMPLETE


_SUMMARY = "summary/pipeline.json"

_PIPELINE = (
    ("ingest", ingest_job),
    ("caption", caption_job),
    ("fuse", fuse_job),
    ("train", train_job),
    ("predict", predict_job),
    ("evaluate", evaluate_job),
)


def _is_catalogue(run: Run) -> bool:
    """Whether the sources of a run have products and no samples."""
    summary = run.read_json("summary/ingest.json")
    return isinstance(summary, dict) and not summary.get("samples") and bool(summary.get("products"))


def _pinned(arguments: Arguments, models: Sequence[Model]) -> Arguments:
    """Return the arguments with models pinned to commits; a plan does not record them in the run."""
    profile = pin_profile(arguments.run, arguments.profile, models, record=not arguments.plan)
    return replace(arguments, profile=profile)


def _evaluated(run: Run, profile: Profile) -> list[Model]:
    """Return the models that `evaluate` uses: the base, and the captioner for captions without context."""
    return [
        *([profile.lineup.captioner] if profile.evaluation.context_free else []),
        *([profile.lineup.base] if run.files("predictions") else []),
    ]


def _miniature_world(arguments: Arguments) -> str:
    """Generate the miniature world in the run and return the path of its data set.

    Raises:
        JobError: the profile is for real data.
    """
    settings = arguments.profile.miniature
    if not settings.draw:
        raise JobError(f"profile {arguments.profile.name} reads real data: give it with --source PATH|URI")
    size = WorldSize(**settings.model_dump(exclude={"draw", "seed"}))
    run = arguments.run
    run.check_lease()
    if isinstance(run.fs, pafs.LocalFileSystem):
        return str(write_dataset(Path(run.path("source")), size, settings.seed))
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(folder, size, settings.seed)
        local = pafs.LocalFileSystem()
        target = run.path("source")
        run.with_retries(
            "write", target,
            lambda: pafs.copy_files(folder, target, source_filesystem=local, destination_filesystem=run.fs),
        )  # fmt: skip
    return run.below("source/dataset.json").uri


def print_summary(job: str, lines: list[str]) -> None:
    """Print the name of a job and the lines of its summary."""
    print(f"\n{job}")
    for line in lines:
        print(f"  {line}")
