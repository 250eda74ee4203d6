"""The fuse job: a join of `samples` with `captions` on the view id.

```
captions files     ─▶ by view id ─┐
                                  ├▶ join ▶ by group of samples ▶ instructions, a report per group
samples partitions ─▶ by view id ─┘
```

Each arrow is a task that reads files and writes one; files that an earlier attempt wrote are not written again. A small
run makes the same steps in the driver, without Ray.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pyarrow.fs as pafs

from caslie_ray import __version__
from caslie_ray.cluster.distribution import is_large
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.errors import RunError
from caslie_ray.fusion._draws import Thresholds, find_thresholds
from caslie_ray.fusion._join import join_bucket, send_captions, send_requests
from caslie_ray.fusion._partition import fuse_group, known_report
from caslie_ray.fusion._report import Report
from caslie_ray.fusion._variants import sources_of
from caslie_ray.fusion._workspace import FOLDER, Part, Workspace, grouped
from caslie_ray.hashing import content_id
from caslie_ray.monitoring.progress import Progress
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import CONTEXT_FREE_FOLDER

__all__ = ["fuse"]

log = logging.getLogger(__name__)

_S = TypeVar("_S")
_T = TypeVar("_T")


def fuse(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, Any]:
    """Write `instructions` from `samples` and `captions`; return the job's summary.

    A file of instructions that already holds the same rows is left alone. A job that was killed is taken up where it
    was. The driver holds counts and names of files.

    Raises:
        RunError: samples or captions are missing, or the store refuses.
    """
    job = _Job(run, profile, quiet)
    report = job.execute()
    if report.fit.unknown is not None:
        base = profile.lineup.base.name
        log.warning("it is not known whether prompts fit the context of %s: %s", base, report.fit.unknown)
    summary = {
        "job": "fuse",
        "run": run.label,
        "profile": profile.name,
        "variants": {name: dict(counts) for name, counts in report.variants.items()},
        "fit": report.fit.summary(profile.lineup.base),
        "views_without_caption_row": report.uncaptioned,
        "verdict_bits": report.bits.as_dict(),
        "files_written": report.written,
    }
    run.write_json("summary/fuse.json", summary)
    return summary


class _Job:
    def __init__(self, run: Run, profile: Profile, quiet: bool) -> None:
        self._run, self._profile, self._quiet = run, profile, quiet
        self._tables = list(dict.fromkeys(source.table for source in sources_of(profile)))
        samples, captions = run.files("samples"), run.files("captions")
        if not samples:
            raise RunError(f"{run.label} has no samples: run ingest first")
        if run.files("views") and not captions:
            raise RunError(f"{run.label} has no captions: run caption first")
        free: list[str] = []
        if profile.experiments.context_free:
            free = run.below(CONTEXT_FREE_FOLDER).files("captions")
            if not free:
                raise RunError(f"{run.label} has no captions without context: run caption first, with the same profile")
        folders = sorted({path.rpartition("/")[0] for path in (*samples, *captions, *free)})
        infos = {info.path: info for folder in folders for info in run.listed(folder)}
        sizes = {path: info.size or 0 for path, info in infos.items()}
        parts = self._parts()
        self._parts_by_group = grouped(parts, [sum(sizes[path] for path in part.files["samples"]) for part in parts])
        # In the order of writing: of two rows of one view the later one counts.
        self._captions = [grouped(files, [sizes[path] for path in files]) for files in (captions, free)]
        self._space = Workspace(
            run,
            _key(profile, [infos[path] for path in (*samples, *captions, *free)], run.root),
            (len(self._captions[0]), len(self._captions[1])),
            len(self._parts_by_group),
            answers=bool(profile.experiments.voter_sets),
            shuffled=profile.experiments.shuffled,
        )
        self._distributed = is_large(run, (*captions, *samples))

    def _parts(self) -> list[Part]:
        listed = {table: self._run.by_partition(table) for table in ("samples", *self._tables)}
        return [
            Part(name, {table: found.get(name, []) for table, found in listed.items()})
            for name in sorted(listed["samples"])
        ]

    def execute(self) -> Report:
        """Make the steps that are missing; return the counts of all samples."""
        space, profile = self._space, self._profile
        self._forget_others()
        names = {part.name for group in self._parts_by_group for part in group}
        with Progress("fuse", len(names), "files", quiet=self._quiet) as progress:
            reports = {group: report for group in self._attempted() if (report := known_report(space, group))}
            progress.add(sum(len(self._parts_by_group[group]) for group in reports))
            todo = [(n, parts) for n, parts in enumerate(self._parts_by_group) if n not in reports]
            if todo:
                thresholds = self._join(progress)

                def work(item: tuple[int, list[Part]]) -> tuple[int, dict[str, Any]]:
                    return item[0], fuse_group(space, profile, thresholds, *item)

                for group, report in self._map(work, todo):
                    reports[group] = report
                    progress.add(len(self._parts_by_group[group]))
        for table in self._tables:
            self._run.delete(path for path in self._run.files(table) if self._run.partition(path) not in names)
        total = Report()
        for _, report in sorted(reports.items()):
            total.add(report)
        self._run.delete_folder(self._run.path(FOLDER))
        return total

    def _join(self, progress: Progress) -> Thresholds:
        """Bring captions to the samples that ask for them; return what the variant `shuffled` is drawn by."""
        space = self._space
        existing = space.existing()
        for context_free, groups in zip((False, True), self._captions, strict=True):
            sends = [
                (context_free, n, files)
                for n, files in enumerate(groups)
                if space.captions(context_free, n) not in existing
            ]
            self._step("captions", lambda item: send_captions(space, *item), sends, progress)
        requests = [(n, parts) for n, parts in enumerate(self._parts_by_group) if space.requests(n) not in existing]
        self._step("samples", lambda item: send_requests(space, *item), requests, progress)
        joins = [bucket for bucket in range(space.buckets) if space.joined(bucket) not in existing]
        self._step("join", lambda bucket: join_bucket(space, bucket), joins, progress)
        if not space.shuffled:
            return {}
        return find_thresholds(space, lambda function: self._map(function, range(space.buckets)))

    def _step(self, name: str, function: Callable[[_S], None], items: Sequence[_S], progress: Progress) -> None:
        for n, _ in enumerate(self._map(function, items), 1):
            progress.tick(f"{name} {n}/{len(items)}")

    def _map(self, function: Callable[[_S], _T], items: Sequence[_S]) -> Iterator[_T]:
        return map_partitions(function, items, distributed=self._distributed)

    def _attempted(self) -> Iterator[int]:
        existing = self._space.existing()
        for group in range(self._space.sample_groups):
            if self._run.path(self._space.report(group)) in existing:
                yield group

    def _forget_others(self) -> None:
        """Delete the working files of attempts with other inputs."""
        own = self._run.path(self._space.folder)
        for info in self._run.listed(self._run.path(FOLDER)):
            if info.path != own:
                self._run.delete_folder(info.path)


def _key(profile: Profile, inputs: Sequence[pafs.FileInfo], root: str) -> str:
    """Return a hash of all that the instructions and their counts depend on."""
    files = [f"{info.path.removeprefix(root)} {info.size} {info.mtime_ns}" for info in inputs]
    return content_id(
        __version__, profile.experiments.model_dump_json(), profile.lineup.base.model_dump_json(), *files
    )[:16]
