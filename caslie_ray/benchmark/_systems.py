"""The systems that are measured in each round, and their workloads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from caslie_ray.benchmark._caption_job import Job, JobResult, caption_timing, run_jobs
from caslie_ray.benchmark._local_runs import LocalResult, LocalTask, devices_for, run_locally, timings
from caslie_ray.benchmark._phases import Vote
from caslie_ray.benchmark._ray_llm import RayLlmTask, models_of, refusal, run_ray_llm
from caslie_ray.benchmark._timing import Timing
from caslie_ray.benchmark._training import SETTINGS, plain_timing, run_plain_loop, train_timing
from caslie_ray.benchmark._views import Workload, copy_table, write_given
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run

__all__ = ["BARE", "OURS", "PLAIN", "PUBLISHED", "RAY_LLM", "Setup", "System", "Variant", "systems", "variants"]

log = logging.getLogger(__name__)

OURS, PUBLISHED, BARE, RAY_LLM, PLAIN = "ours", "published loop", "bare engine", "ray.data.llm", "plain loop"

_NO_EXPERIMENTS = (
    "experiments.shuffled=false", "experiments.verdict_only=false", "experiments.task_specific=false",
    "experiments.context_free=false", "experiments.voter_sets=[]",
)  # fmt: skip


class Variant(NamedTuple):
    """One job of this project in one configuration.

    Attributes:
        name: such as `chain (streamed, full votes)`; its first word is the measure.
        job: the job.
        tables: input tables of its run.
        settings: overrides of the profile.
        bare: name of the bare engines' timing to compare with.
        reason: why it is not run; empty if it is.
    """

    name: str
    job: str
    tables: tuple[str, ...]
    settings: tuple[str, ...]
    bare: str
    reason: str = ""

    @property
    def measure(self) -> str:
        """The measure that it belongs to."""
        return self.name.split(maxsplit=1)[0]


@dataclass
class Setup:
    """State shared by all systems.

    Attributes:
        profile: the profile.
        profile_path: its file.
        workload: the inputs.
        scratch: where runs of jobs are created.
        folder: a local folder for files exchanged between processes.
        cpus: cores of this machine.
        gpus: GPUs of this machine.
        measures: what is measured.
        together: run this project's jobs in one process, one after the other, so that only the first starts Ray.
        tokens: tokens of all training samples.
        also: additional jobs for that process.
        also_results: their measurements.
        published_votes: votes of the published loop, last round.
        bare_votes: votes of the bare engines, last round.
        published: result of the published loop, last round.
        bare: result of the bare engines, last round.
    """

    profile: Profile
    profile_path: str
    workload: Workload
    scratch: Run
    folder: Path
    cpus: int
    gpus: int
    measures: tuple[str, ...]
    together: bool
    tokens: int = 0
    also: list[Job] = field(default_factory=list)
    also_results: list[JobResult] = field(default_factory=list)
    published_votes: list[Vote] = field(default_factory=list)
    bare_votes: list[Vote] = field(default_factory=list)
    published: LocalResult | None = None
    bare: LocalResult | None = None

    @property
    def runnable(self) -> tuple[str, ...]:
        """The measures that have inputs."""
        needs = {"prediction": "questions", "training": "examples"}
        return tuple(name for name in self.measures if self.workload.counts[needs.get(name, "views")])

    @property
    def asks_views(self) -> bool:
        """Whether any measure needs views."""
        return bool({"captioning", "voting", "chain"} & set(self.measures))

    @property
    def asks_voters(self) -> bool:
        """Whether any measure needs votes."""
        return bool({"voting", "chain"} & set(self.measures))


class System(NamedTuple):
    """One system: a function that measures it once and returns timings by the names in `keys`."""

    name: str
    keys: tuple[str, ...]
    measure: Callable[[], Mapping[str, Timing]]

    def timed(self) -> Mapping[str, Timing]:
        """Measure once; on failure, each timing has the reason."""
        try:
            return self.measure()
        except Exception as error:  # the other systems are measured anyway
            log.warning("%s failed: %s", self.name, error, exc_info=log.isEnabledFor(logging.DEBUG))
            reason = str(error).strip().splitlines()
            return dict.fromkeys(self.keys, Timing(0, None, 0.0, reason=reason[0] if reason else type(error).__name__))


def variants(profile: Profile, measures: Sequence[str]) -> list[Variant]:
    """Return the jobs that are measured."""
    majority = "votes.rule=majority"
    generated = "captions.source=generated"
    found = [
        Variant("captioning", "caption", ("views", "images"), ("votes.rule=always", generated), "captioning"),
        Variant(
            "voting", "caption", ("views", "images"), (majority, "votes.schedule=full", "captions.source=dataset"),
            "voting",
        ),
    ]  # fmt: skip
    alone = "one voter: early exit skips no votes" if len(profile.lineup.voters) < 2 else ""
    for schedule in ("streamed", "staged"):
        for votes, how, bare in (("full", "full votes", "chain"), ("early", "early exit", "chain early")):
            settings = (majority, generated, f"schedule={schedule}", f"votes.schedule={votes}")
            reason = alone if votes == "early" else ""
            found.append(Variant(f"chain ({schedule}, {how})", "caption", ("views", "images"), settings, bare, reason))
    found.append(
        Variant(
            "prediction", "predict", ("instructions",),
            ("training.variants=[]", "prediction.base=true", "prediction.splits=[ind,ood]"), "prediction",
        )
    )  # fmt: skip
    found.append(Variant("training", "train", ("instructions",), SETTINGS, ""))
    return [variant for variant in found if variant.measure in measures]


def systems(setup: Setup) -> list[System]:
    """Return all systems; the bare engines first, since voting alone uses their captions."""
    found = []
    views = ("captioning", "voting", "chain", "chain early") if setup.asks_views else ()
    keys = (*views, *(("prediction",) if "prediction" in setup.runnable else ()))
    if keys:
        found += [System(BARE, keys, lambda: _bare(setup)), System(PUBLISHED, keys, lambda: _published(setup))]
    for measure in ("captioning", "voting", "prediction"):
        if measure in setup.runnable and not refusal(setup.profile, measure):
            found.append(System(RAY_LLM, (measure,), lambda measure=measure: {measure: _ray_llm(setup, measure)}))  # type: ignore[misc]
    if "training" in setup.runnable:
        found.append(System(PLAIN, ("training",), lambda: {"training": _plain(setup)}))
    ours = [variant for variant in variants(setup.profile, setup.runnable) if not variant.reason]
    groups = [ours] if setup.together else [[variant] for variant in ours]
    for group in groups:
        names = tuple(variant.name for variant in group)
        found.append(System(OURS, names, lambda group=group: run_variants(setup, group)))  # type: ignore[misc]
    return found


def _alone(setup: Setup, *, published: bool) -> LocalResult:
    devices = devices_for(setup.profile, setup.cpus, setup.gpus, published=published)
    views = setup.workload.views.uri if setup.asks_views else ""
    questions = setup.workload.questions.uri if "prediction" in setup.runnable else ""
    early = not published and "chain" in setup.measures and len(setup.profile.lineup.voters) > 1
    return run_locally(LocalTask(setup.profile_path, views, questions, published, setup.asks_voters, early, devices))


def _bare(setup: Setup) -> Mapping[str, Timing]:
    first = setup.bare is None
    setup.bare = _alone(setup, published=False)
    setup.bare_votes = setup.bare.votes
    if first and setup.asks_views:
        write_given(setup.workload.given, setup.bare.captions)
    return timings(setup.bare, setup.workload.counts["views"])


def _published(setup: Setup) -> Mapping[str, Timing]:
    setup.published = _alone(setup, published=True)
    setup.published_votes = setup.published.votes
    return timings(setup.published, setup.workload.counts["views"])


def _ray_llm(setup: Setup, measure: str) -> Timing:
    runs = {
        "captioning": setup.workload.views,
        "voting": setup.workload.given,
        "prediction": setup.workload.questions,
    }
    assert models_of(setup.profile, measure)
    return run_ray_llm(RayLlmTask(setup.profile_path, measure, runs[measure].uri), setup.folder)


def _plain(setup: Setup) -> Timing:
    return plain_timing(run_plain_loop(setup.profile_path, setup.workload.examples.uri, setup.cpus))


def run_variants(setup: Setup, group: Sequence[Variant]) -> dict[str, Timing]:
    """Run jobs in one process, each on a new copy of its inputs; return their timings by name."""
    jobs = []
    for number, variant in enumerate(group):
        run = setup.scratch.below(f"job-{number}")
        run.delete_folder(run.path())
        copy_table(_source(setup.workload, variant), run, variant.tables)
        jobs.append(Job(variant.job, run, setup.profile_path, (*_NO_EXPERIMENTS, *variant.settings)))
    results = run_jobs([*jobs, *setup.also], setup.folder)
    if setup.also:
        setup.also, setup.also_results = [], results[len(jobs) :]
    found = {}
    for variant, job, result in zip(group, jobs, results, strict=False):
        found[variant.name] = _timing(setup, variant, job.run, result)
        job.run.delete_folder(job.run.path())
    return found


def _source(workload: Workload, variant: Variant) -> Run:
    by_measure = {"voting": workload.given, "prediction": workload.questions, "training": workload.examples}
    return by_measure.get(variant.measure, workload.views)


def _timing(setup: Setup, variant: Variant, run: Run, result: JobResult) -> Timing:
    summary: dict[str, Any] = run.read_json(f"summary/{variant.job}.json") or {}
    if variant.measure == "training":
        return train_timing(result, setup.tokens, summary)
    session = summary.get("this_session", {})
    counts = setup.workload.counts
    if variant.measure == "voting":
        units = session.get("model_calls", 0)
    else:
        units = counts["questions"] if variant.measure == "prediction" else counts["views"]
    return caption_timing(result, units, session)
