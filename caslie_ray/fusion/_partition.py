"""The last step: a group of sample partitions and its captions become files of instructions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.context_window import ContextCheck
from caslie_ray.errors import RunError, StoreError
from caslie_ray.fusion._draws import Thresholds
from caslie_ray.fusion._instructions import instructions_of
from caslie_ray.fusion._join import JOINED
from caslie_ray.fusion._report import Report
from caslie_ray.fusion._variants import Captioned, sources_of
from caslie_ray.fusion._workspace import Part, Workspace
from caslie_ray.profiles import Profile
from caslie_ray.prompts import Prompt, read_spans
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.storage.shuffle import read_buckets

__all__ = ["CaptionLookup", "check_fit", "fuse_group", "known_report"]


class CaptionLookup:
    """Finds the captions of a partition's views among those of its group.

    Args:
        rows: rows of `JOINED`, each view once.
        thresholds: up to which lots the variant `shuffled` shows a caption.
    """

    def __init__(self, rows: pa.Table, thresholds: Thresholds) -> None:
        self._rows = rows
        self._thresholds = thresholds

    def of(self, view_ids: set[str]) -> tuple[dict[str, Captioned], dict[str, Captioned]]:
        """Return what is known of some views, by their ids: their captions with context, and those without."""
        wanted = pa.array(sorted(view_ids), pa.string())
        place = pc.index_in(wanted, value_set=self._rows["view_id"].combine_chunks()).drop_null()
        rows = self._rows.take(place).to_pylist()
        known = {
            row["view_id"]: Captioned(
                row["caption"],
                bool(row["verdict"]),
                {vote["voter"]: vote["answer"] for vote in row["answers"] or ()},
                row["draw"] is not None and row["draw"] <= self._thresholds.get((row["task"], row["split"]), -1),
            )
            for row in rows
            if row["known"]
        }
        free = {
            row["view_id"]: Captioned(row["free_caption"], bool(row["free_verdict"]))
            for row in rows
            if row["free_known"]
        }
        return known, free


def fuse_group(
    space: Workspace, profile: Profile, thresholds: Thresholds, group: int, parts: Sequence[Part]
) -> dict[str, Any]:
    """Write the instructions of a group of partitions; return its report, as JSON has it.

    A file that already holds the same rows is left alone.

    Raises:
        RunError: a file is damaged, a voter of `experiments.voter_sets` was not asked, or the store refuses.
    """
    joined = [space.joined(bucket) for bucket in range(space.buckets)]
    lookup = CaptionLookup(read_buckets(space.run, joined, group, JOINED), thresholds)
    check = ContextCheck(profile.lineup.base)
    report = Report(fit=check.counts)
    for part in parts:
        run = space.run.with_file_listing(part.files)
        samples = [row for row in run.read("samples", partition=part.name).to_pylist() if row["output"]]
        known, free = lookup.of({view for row in samples for view in row["view_ids"] or () if view})
        for row in samples:
            won = [view in known and known[view].verdict for view in row["view_ids"] or ()]
            report.bits.add(row["task"], row["split"], row["options"] or (), row["output"], won)
        asked = Counter(view for row in samples for view in row["view_ids"] or () if view)
        report.uncaptioned += sum(count for view, count in asked.items() if view not in known)
        tables: dict[str, list[dict[str, Any]]] = {}
        for source in sources_of(profile):
            fused = tables.setdefault(source.table, [])
            for row in samples:
                fused += instructions_of(row, free if source.context_free else known, source.choose)
        for table, fused in tables.items():
            report.count(fused)
            for instruction in fused:
                check_fit(check, instruction)
            path, is_new = _write_if_new(run, table, part.name, fused)
            report.written += is_new
            info = run.info([path])[0]
            report.files[path] = (info.size or 0, info.mtime_ns or 0)
    found = report.as_json()
    space.run.write_json(space.report(group), found)
    return found


def known_report(space: Workspace, group: int) -> dict[str, Any] | None:
    """Return the report of a group that an earlier attempt fused; None if there is none, or its files have changed."""
    try:
        report: dict[str, Any] | None = space.run.read_json(space.report(group))
    except StoreError:
        raise
    except RunError:
        return None
    if report is None:
        return None
    infos = space.run.info(list(report["files"]))
    found = {info.path: [info.size or 0, info.mtime_ns or 0] for info in infos}
    return report if found == report["files"] else None


def check_fit(check: ContextCheck, instruction: Mapping[str, Any]) -> None:
    """Count what a row of `instructions` loses to fit the base's context."""
    spans = read_spans(instruction["prompt_fields"]), read_spans(instruction["prompt_captions"])
    check.add(instruction["variant"], Prompt(instruction["prompt"], *spans))


def _write_if_new(run: Run, table: str, partition: str, rows: Sequence[dict[str, Any]]) -> tuple[str, bool]:
    """Write a partition unless its only file holds the same rows; return its path, and whether it was written."""
    fused = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
    existing = run.files(table, partition)
    if len(existing) == 1 and _holds(run, table, partition, fused):
        return existing[0], False
    written = run.write(table, partition, fused)
    run.delete(path for path in existing if path != written)
    return written, True


def _holds(run: Run, table: str, partition: str, rows: pa.Table) -> bool:
    try:
        return bool(run.read(table, partition=partition).equals(rows))
    except StoreError:
        raise
    except RunError:  # a damaged file is replaced
        return False
