"""`caption --status`: the progress of a run, read from its files without a model, Ray or the running job."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from caslie_ray.captioning._counts import kind_of_error
from caslie_ray.captioning._ledger import KEPT
from caslie_ray.errors import RunError
from caslie_ray.monitoring.progress import clock
from caslie_ray.storage.claims import Claim, holders
from caslie_ray.storage.latest_rows import latest_rows
from caslie_ray.storage.run import Run

__all__ = ["CaptionStatus", "caption_status"]

_THREADS = 16
_RECENT_S = 600.0
_COLUMNS = ["view_id", "verdict", "error", "retryable"]


@dataclass
class CaptionStatus:
    """The progress of a run's captions; rows of every lineup count.

    Attributes:
        views: distinct views of the run.
        done: views that have a row, error rows included.
        used: views whose caption is used.
        retryable: rows that the next job asks again.
        errors: error rows by kind.
        answers: answers per model (staged schedule), by the model's folder.
        files: files of `captions`.
        damaged: files of `captions` that cannot be read; their rows are computed again.
        recent: rows in files written in the last ten minutes, or since the running job started if that is shorter.
        seconds: duration of that period, up to the last write.
        written: time of the last write, in seconds since 1970; None if there is none.
        holder: the running job; None if there is none.
    """

    views: int = 0
    done: int = 0
    used: int = 0
    retryable: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    answers: dict[str, int] = field(default_factory=dict)
    files: int = 0
    damaged: int = 0
    recent: int = 0
    seconds: float = 0.0
    written: float | None = None
    holder: Claim | None = None

    @property
    def left(self) -> int:
        """Views without a row."""
        return self.views - self.done

    def lines(self) -> list[str]:
        """Return the status as printed lines."""
        share = f" ({self.done / self.views:.1%})" if self.views else ""
        lines = [f"views        {self.views:,}", f"done         {self.done:,}{share}", f"left         {self.left:,}"]
        lines += [f"answers      {rows:,} of {name}" for name, rows in self.answers.items() if rows]
        if self.done:
            lines.append(f"used         {self.used:,} ({self.used / self.done:.1%} of those done)")
        again = f" · {self.retryable:,} rows to be asked again" if self.retryable else ""
        lines.append(f"errors       {self.errors.total():,}{again}")
        lines += [f"  {count:>6,}  {reason}" for reason, count in self.errors.most_common(8)]
        damaged = f" · {self.damaged:,} damaged, their rows are asked again" if self.damaged else ""
        lines.append(f"files        {self.files:,}{damaged}")
        if self.written is not None:
            lines.append(f"last write   {clock(max(0.0, time.time() - self.written))} ago")
        if self.holder is not None and self.recent and self.seconds:
            rate = self.recent / self.seconds
            left = f" · {clock(self.left / rate)} left" if self.left else ""
            lines.append(f"rate         about {rate:.1f} views/s over {clock(self.seconds)}{left}")
        lines.append(f"held by      {self._holder()}")
        return lines

    def _holder(self) -> str:
        if self.holder is None:
            return "no job"
        # Mixes the store's clock and this one: good enough to print, not to decide by.
        return f"{self.holder}, last renewed {clock(max(0.0, time.time() - self.holder.renewed))} ago"


def caption_status(run: Run) -> CaptionStatus:
    """Read the progress of a run's captions.

    Rows of every lineup count; `--plan` counts those that are up to date for a given one.

    Raises:
        RunError: the run has no views, or its store refuses.
    """
    listed = {table: run.by_partition(table) for table in ("views", "captions")}
    if not listed["views"]:
        raise RunError(f"{run.label} has no views: run ingest first")
    holder = next(iter(holders(run)), None)
    files = [path for paths in listed["captions"].values() for path in paths]
    times = [(info.mtime_ns or 0) / 1e9 for info in run.info(files)]
    written = max(times, default=None)
    since = max(time.time() - _RECENT_S, holder.since if holder else 0.0)
    recent = {path for path, at in zip(files, times, strict=True) if at > since}
    status = CaptionStatus(files=len(files), written=written, holder=holder)

    def look(name: str) -> _Part:
        here = run.with_file_listing({table: paths.get(name, []) for table, paths in listed.items()})
        return _read_partition(here, name, recent)

    with ThreadPoolExecutor(_THREADS) as threads:
        for part in threads.map(look, sorted(listed["views"])):
            for name, count in part.counts.items():
                setattr(status, name, getattr(status, name) + count)
            status.errors += part.errors
        for folder in _folders(run):
            status.answers[folder.removeprefix("answers/")] = sum(threads.map(run.count_rows, run.files(folder)))
    status.seconds = max(0.0, (written or 0.0) - since)
    return status


class _Part(NamedTuple):
    counts: dict[str, int]
    errors: Counter[str]


def _read_partition(run: Run, partition: str, recent: Collection[str]) -> _Part:
    view_ids = pc.unique(run.read("views", ["view_id"], partition)["view_id"])
    errors: Counter[str] = Counter()
    counts = {"views": len(view_ids), "damaged": 0, "recent": 0}
    parts: list[pa.Table] = []
    for path in run.files("captions", partition):
        try:
            parts.append(run.read_file(path, _COLUMNS))
        except RunError:  # damaged, or merged and deleted since it was listed
            counts["damaged"] += 1
            continue
        counts["recent"] += parts[-1].num_rows if path in recent else 0
    if parts:
        rows = latest_rows(pa.concat_tables(parts), ["view_id"])
        rows = rows.filter(pc.is_in(rows["view_id"], value_set=view_ids))
        counts["done"] = rows.num_rows
        counts["used"] = pc.sum(rows["verdict"]).as_py() or 0
        counts["retryable"] = pc.sum(rows["retryable"]).as_py() or 0
        errors.update(map(kind_of_error, rows["error"].drop_null().to_pylist()))
    return _Part(counts, errors)


def _folders(run: Run) -> list[str]:
    """Return the answer folders of models, without `KEPT`."""
    listed = run.listed(run.path("answers"))
    names = sorted(f"answers/{info.base_name}" for info in listed if info.type == pafs.FileType.Directory)
    return [name for name in names if name != KEPT]
