"""Where a run stands, read from its files: no model, no Ray, and nothing of the job that may be at work."""

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

from caslie_ray.captioning._ledger import KEPT
from caslie_ray.captioning._summary import kind_of_error
from caslie_ray.errors import RunError
from caslie_ray.monitoring.progress import clock
from caslie_ray.storage.claims import Claim, holders
from caslie_ray.storage.latest_rows import latest_rows
from caslie_ray.storage.run import Run

__all__ = ["CaptionStatus", "caption_status"]

_THREADS = 16
_LATELY_S = 600.0
_COLUMNS = ["view_id", "verdict", "error", "retryable"]


@dataclass
class CaptionStatus:
    """Where the captions of a run stand, whatever lineup they are of.

    Attributes:
        views: distinct views of the run.
        done: views that have a row, error rows included.
        used: views whose caption is used.
        retryable: rows that the next job asks again.
        errors: error rows by reason.
        answers: answers of single models (staged schedule), by the model's folder.
        files: files of `captions`.
        broken: those that cannot be read; their rows are asked again.
        recent: rows in files written in the last ten minutes, or since the job at work began.
        seconds: from then to the last write.
        written: when something was last written, in seconds since 1970; None where nothing was.
        holder: the job at work; None where there is none.
    """

    views: int = 0
    done: int = 0
    used: int = 0
    retryable: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    answers: dict[str, int] = field(default_factory=dict)
    files: int = 0
    broken: int = 0
    recent: int = 0
    seconds: float = 0.0
    written: float | None = None
    holder: Claim | None = None

    @property
    def left(self) -> int:
        """Views without a row."""
        return self.views - self.done

    def lines(self) -> list[str]:
        """Return the status as a person reads it."""
        share = f" ({self.done / self.views:.1%})" if self.views else ""
        lines = [f"views        {self.views:,}", f"done         {self.done:,}{share}", f"left         {self.left:,}"]
        lines += [f"answers      {rows:,} of {name}" for name, rows in self.answers.items() if rows]
        if self.done:
            lines.append(f"used         {self.used:,} ({self.used / self.done:.1%} of those done)")
        again = f" · {self.retryable:,} rows to be asked again" if self.retryable else ""
        lines.append(f"errors       {self.errors.total():,}{again}")
        lines += [f"  {count:>6,}  {reason}" for reason, count in self.errors.most_common(8)]
        broken = f" · {self.broken:,} not whole, their rows are asked again" if self.broken else ""
        lines.append(f"files        {self.files:,}{broken}")
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
        # By the store's clock and this one: fit for a person, not for a decision.
        return f"{self.holder}, last renewed {clock(max(0.0, time.time() - self.holder.renewed))} ago"


def caption_status(run: Run) -> CaptionStatus:
    """Read where a run's captions stand.

    Rows count whichever lineup they are of: whether they still hold for one, `--plan` says.

    Raises:
        RunError: the run has no views, or its store refuses.
    """
    listed = {table: run.by_partition(table) for table in ("views", "captions")}
    if not listed["views"]:
        raise RunError(f"{run.label} has no views: run ingest first")
    held = next(iter(holders(run)), None)
    files = [path for paths in listed["captions"].values() for path in paths]
    times = [(info.mtime_ns or 0) / 1e9 for info in run.info(files)]
    written = max(times, default=None)
    since = max(time.time() - _LATELY_S, held.since if held else 0.0)
    lately = {path for path, at in zip(files, times, strict=True) if at > since}
    status = CaptionStatus(files=len(files), written=written, holder=held)

    def look(name: str) -> _Part:
        here = run.with_file_listing({table: found.get(name, []) for table, found in listed.items()})
        return _look(here, name, lately)

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


def _look(run: Run, partition: str, lately: Collection[str]) -> _Part:
    wanted = pc.unique(run.read("views", ["view_id"], partition)["view_id"])
    errors: Counter[str] = Counter()
    counts = {"views": len(wanted), "broken": 0, "recent": 0}
    parts: list[pa.Table] = []
    for path in run.files("captions", partition):
        try:
            parts.append(run.read_file(path, _COLUMNS))
        except RunError:  # of a writer that died, or of one that has just brought its files together
            counts["broken"] += 1
            continue
        counts["recent"] += parts[-1].num_rows if path in lately else 0
    if parts:
        rows = latest_rows(pa.concat_tables(parts), ["view_id"])
        rows = rows.filter(pc.is_in(rows["view_id"], value_set=wanted))
        counts["done"] = rows.num_rows
        counts["used"] = pc.sum(rows["verdict"]).as_py() or 0
        counts["retryable"] = pc.sum(rows["retryable"]).as_py() or 0
        errors.update(map(kind_of_error, rows["error"].drop_null().to_pylist()))
    return _Part(counts, errors)


def _folders(run: Run) -> list[str]:
    """The folders of the answers of single models, without those that are kept for later."""
    found = run.listed(run.path("answers"))
    names = sorted(f"answers/{info.base_name}" for info in found if info.type == pafs.FileType.Directory)
    return [name for name in names if name != KEPT]
