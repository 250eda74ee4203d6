"""The caption job: passes over the missing views until every view has its row, then counts and the summary."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from caslie_ray.captioning._background_merge import BackgroundMerge
from caslie_ray.captioning._caption_work import CaptionWork
from caslie_ray.captioning._completion_marker import read_completion
from caslie_ray.captioning._counts import Counts, count_partition, merge_counts
from caslie_ray.captioning._merge import merge_answers, merge_partition
from caslie_ray.captioning._partition_status import PartitionStatus
from caslie_ray.captioning._partitions import Partitions
from caslie_ray.captioning._summary import job_summary
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.monitoring.progress import Progress
from caslie_ray.monitoring.progress_monitor import ProgressMonitor
from caslie_ray.pipeline.pools import Pools, block_rows_for, check_models, pass_after_pass
from caslie_ray.profiles import Profile
from caslie_ray.roles import ResolvedLineup, needed_names, resolve
from caslie_ray.storage.run import Run

__all__ = ["CaptionJob", "CaptionResult", "caption"]

# Factor by which blocks shrink after a pass that finished nothing.
_SHRINK = 8


@dataclass
class CaptionResult:
    """The outcome of a caption job.

    Attributes:
        summary: what `RUN/summary/caption.json` contains.
        missing: views without an up-to-date row; run the job again if it is not 0.
    """

    summary: dict[str, Any]
    missing: int


@dataclass
class CaptionJob:
    """One caption job on one run.

    Raises:
        ProfileError: the lineup is refused.
        EngineError: a checkpoint cannot be found.
        RunError: the run has no views, or its store refuses.
        PoolDown: a model cannot be started or kept alive; see `faults.missing_voter`.
    """

    run: Run
    profile: Profile
    quiet: bool = False
    lineup: ResolvedLineup = field(init=False)
    partitions: Partitions = field(init=False)
    pools: dict[str, PoolStats] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.lineup = resolve(self.profile)
        self.partitions = Partitions(self.run, self.lineup)

    def execute(self) -> CaptionResult:
        """Compute what is missing, check the table, and write the summary."""
        start = time.monotonic()
        statuses = self.partitions.survey(self.lineup.names)
        missing = sum(status.missing for status in statuses)
        # Rows that are only outdated need no model; merging writes them.
        if any(status.waits for status in statuses):
            check_models(self.lineup.roles, needed_names(self.lineup, self.profile.faults))
            if self.profile.schedule == "staged":
                self._run_staged()
            else:
                self._run_streamed(statuses)
            statuses = self.partitions.survey(())
        waiting = self._merge_rows(statuses)
        counts = self._count(statuses)
        # A view that waits may have a row, an outdated one.
        left = max(waiting, counts.totals["missing"]) + counts.totals["orphans"]
        summary = job_summary(
            self.run, self.profile, self.lineup, counts, self.pools,
            missing=left, computed=max(0, missing - left), seconds=time.monotonic() - start,
        )  # fmt: skip
        self.run.write_json("summary/caption.json", summary)
        return CaptionResult(summary, left)

    def _run_streamed(self, statuses: Sequence[PartitionStatus]) -> None:
        work = CaptionWork(self.run, self.lineup, self.profile.storage.block_rows, self.lineup.names)
        self._run_pools(work, "caption", statuses, lambda status: status.missing)

    def _run_staged(self) -> None:
        for stage in self.lineup.stages:
            names = [role.name for role in self.lineup.roles_of_stage(stage)]
            statuses = self.partitions.survey(names)

            def waiting(status: PartitionStatus, names: Sequence[str] = names) -> int:
                return sum(status.waits[name] for name in names)

            if any(map(waiting, statuses)):
                work = CaptionWork(self.run, self.lineup, self.profile.storage.block_rows, frozenset(names), stage)
                self._run_pools(work, stage, statuses, waiting)

    def _run_pools(
        self,
        work: CaptionWork,
        name: str,
        statuses: Sequence[PartitionStatus],
        count_left: Callable[[PartitionStatus], int],
    ) -> None:
        """Load models, and run passes until they have answered what is left for them."""
        needed = needed_names(self.lineup, self.profile.faults)
        total = sum(map(count_left, statuses))
        pools = Pools(self.profile.faults, work.roles, self._pool_rows(total), needed)
        with Progress(name, total, quiet=self.quiet) as progress:
            with pools, ProgressMonitor(pools.poll, progress, self.run.label, name) as monitor:
                work = replace(work, block_rows=block_rows_for(pools.plans, work.block_rows, self._job_rows(total)))
                self._run_passes(work, pools, statuses, monitor, count_left)
            self.pools.update(pools.stats)

    def _run_passes(
        self,
        work: CaptionWork,
        pools: Pools,
        statuses: Sequence[PartitionStatus],
        monitor: ProgressMonitor,
        count_left: Callable[[PartitionStatus], int],
    ) -> None:
        """Compute what is missing, pass after pass."""
        missing = {status.partition: count_left(status) for status in statuses}
        merged: dict[str, int] = {}

        def run_pass(names: list[str], shrinks: int) -> None:
            nonlocal work, merged
            current = replace(work, block_rows=max(1, work.block_rows // _SHRINK**shrinks))
            parts = dict(zip(names, self.partitions.files(names), strict=True))
            merges = work.stage is None and self.partitions.are_large
            merge_in_tasks = functools.partial(self._merge, in_tasks=True)
            with BackgroundMerge(merge_in_tasks, missing if merges else {}) as merge:
                for report in pools.run_pass(current, parts, current.block_rows, small_calls=shrinks > 0):
                    merge.wrote(report.pop("partition"), report["views"])
                    monitor.add(**report)
            merged = merge.waiting
            work = replace(work, retry=frozenset())
            if work.stage is not None:
                self._merge_stage_answers(work, names)

        def missing_in(names: list[str]) -> dict[str, int]:
            nonlocal missing
            if work.stage is None:  # merging reads what a survey would
                missing = {**merged, **self._merge([name for name in names if name not in merged])}
            else:
                missing = {status.partition: count_left(status) for status in self.partitions.survey((), names)}
            return missing

        pass_after_pass(missing, run_pass, missing_in, self.profile.faults.passes)

    def _merge_stage_answers(self, work: CaptionWork, names: Sequence[str]) -> None:
        """Merge the answer files of a stage, which later stages read."""
        folders = [role.answers for role in work.roles]
        list(self.partitions.map(functools.partial(_merge_folders, folders=folders), names))

    def _pool_rows(self, total: int) -> int:
        """Rows by which pools are sized."""
        return total

    def _job_rows(self, total: int) -> int:
        """Rows by which blocks are sized."""
        return total

    def _merge_rows(self, statuses: Sequence[PartitionStatus]) -> int:
        """Merge the partitions that changed; return how many views still wait for a model."""
        changed = [status.partition for status in statuses if status.missing or not status.merged]
        without_views = {self.run.partition(path) for path in self.run.files("captions")} - set(self.partitions.names)
        return sum(self._merge(changed + sorted(without_views)).values())

    def _merge(self, names: Sequence[str], *, in_tasks: bool | None = None) -> dict[str, int]:
        """Merge partitions; return how many of their views still wait for a model."""
        merge = functools.partial(_merge_partition, lineup=self.lineup)
        return dict(self.partitions.map(merge, names, in_tasks=in_tasks))

    def _count(self, statuses: Sequence[PartitionStatus]) -> Counts:
        from_markers = [status.counts for status in statuses if status.counts is not None]
        others = [status.partition for status in statuses if status.counts is None]
        return merge_counts(
            [*from_markers, *self.partitions.map(functools.partial(_counts, lineup=self.lineup), others)]
        )


def _merge_partition(run: Run, partition: str, lineup: ResolvedLineup) -> tuple[str, int]:
    return partition, merge_partition(run, partition, lineup)


def _merge_folders(run: Run, partition: str, folders: Sequence[str]) -> None:
    for folder in folders:
        merge_answers(run, partition, folder)


def _counts(run: Run, partition: str, lineup: ResolvedLineup) -> Counts:
    return read_completion(run, partition, lineup) or count_partition(run, partition, lineup)


def caption(run: Run, profile: Profile, *, quiet: bool = False) -> CaptionResult:
    """Caption every view of a run and vote on the captions (EC³ and CQE, paper 4.1 and 4.2).

    Only what the run lacks is computed; a complete run starts no Ray and loads no model.

    Args:
        run: has `images` and `views`.
        profile: the lineup and its rules.
        quiet: no progress lines.

    Raises:
        PoolDown: a model cannot be started or kept alive; other errors as `CaptionJob`.
    """
    return CaptionJob(run, profile, quiet).execute()
