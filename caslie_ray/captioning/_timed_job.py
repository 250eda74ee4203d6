"""The caption job that a plan times."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from caslie_ray.captioning._caption_work import CaptionWork
from caslie_ray.captioning._job import CaptionJob
from caslie_ray.captioning._partition_status import PartitionStatus
from caslie_ray.captioning._plan_sample import PARTS
from caslie_ray.monitoring.progress_monitor import ProgressMonitor
from caslie_ray.pipeline.pools import Pools

__all__ = ["TimedJob"]


class TimedJob(CaptionJob):
    """A caption job on a sample that measures the duration of each part, without start-up.

    Attributes:
        planned_views: views of the planned job, by which blocks are sized.
        views: views of the sample by part.
        seconds: duration of the passes, by stage and part.
    """

    planned_views: int = 0
    views: dict[str, int]
    seconds: dict[str | None, dict[str, float]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.views = dict.fromkeys(PARTS, 0)
        self.seconds = {}
        for path in self.run.files("views"):
            self.views[self.run.partition(path)[0]] += self.run.count_rows(path)

    def _pool_rows(self, total: int) -> int:
        return 0

    def _job_rows(self, total: int) -> int:
        return self.planned_views

    def _run_passes(
        self,
        work: CaptionWork,
        pools: Pools,
        statuses: Sequence[PartitionStatus],
        monitor: ProgressMonitor,
        count_left: Callable[[PartitionStatus], int],
    ) -> None:
        seconds = self.seconds.setdefault(work.stage, dict.fromkeys(PARTS, 0.0))
        for part in PARTS:
            start = time.monotonic()
            super()._run_passes(
                work, pools, [one for one in statuses if one.partition.startswith(part)], monitor, count_left
            )
            seconds[part] += time.monotonic() - start
