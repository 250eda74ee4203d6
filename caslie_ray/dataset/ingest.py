"""`ingest`: sources in the released format become the tables samples, images, views and rejects of a run.

The tables are a function of the sources and settings: another set of sources replaces what was there.
What a run already holds is not done again: a source file that is unchanged is not read, a reference that
was fetched is not fetched (unless it failed for a reason that may pass), and files that would be written
anew with the same rows are left alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from caslie_ray.dataset._fetch import Fate, Fetcher, Ledger, Wanted, fate_table, plan, write_fetched
from caslie_ray.dataset._parse import Parser, chunks, parse_key
from caslie_ray.dataset._ray import Lost, each, each_of_stream
from caslie_ray.dataset._resolve import Group, Resolver
from caslie_ray.dataset._tables import TABLES, Writer, Written
from caslie_ray.dataset.columns import Columns
from caslie_ray.dataset.images import Outcome
from caslie_ray.dataset.reading import SourceFile, find_sources
from caslie_ray.dataset.summary import IngestSummary, counted
from caslie_ray.dataset.working import FOLDER
from caslie_ray.ids import content_id
from caslie_ray.profiles import Profile
from caslie_ray.runs import Run, RunError, partitions
from caslie_ray.tables import SCHEMAS
from caslie_ray.tasks import TASKS, Task

__all__ = ["Progress", "ingest"]

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much (0 where nobody knows), and of what."""

_UNKNOWN = Fate(None, "lost: the image was read and is gone; run ingest again", retryable=True)
_STAMP = f"{FOLDER}/tables.json"
_BLOCK = 256
_GROUP = 10
_WRITERS = 64


def ingest(
    run: Run,
    sources: Sequence[str],
    profile: Profile,
    *,
    progress: Progress | None = None,
    tasks: Mapping[str, Task] | None = None,
) -> IngestSummary:
    """Bring sources into a run.

    Args:
        run: where the tables go.
        sources: files and folders by path or URI, in the released format or near it.
        profile: its parts `images`, `ingest` and `storage` count.
        progress: told of every step forward.
        tasks: the tasks to read; those that are installed where None.

    Raises:
        SourceError: a source is not there.
        RunError: the run cannot be written, or workers die again and again.
    """
    started = time.monotonic()
    files, ignored = find_sources(sources)
    job = _Ingest(run, profile, progress or _silent, TASKS if tasks is None else tasks)
    told = job.bring(files)
    seconds = round(time.monotonic() - started, 3)
    return IngestSummary(files=len(files), ignored_files=ignored, seconds=seconds, **told)


def _silent(done: int, total: int, note: str) -> None:
    pass


class _Ingest:
    """The steps, in order; each takes what the step before has left in the run."""

    def __init__(self, run: Run, profile: Profile, progress: Progress, tasks: Mapping[str, Task]) -> None:
        self._run = run
        self._profile = profile
        self._progress = progress
        self._tasks = tasks
        self._concurrency = profile.ingest.concurrency

    def bring(self, files: Sequence[SourceFile]) -> dict[str, Any]:
        """Do all steps and return what the summary says of them."""
        ledger = Ledger(self._run, self._profile.images)
        folders = [self._folder(file) for file in files]
        unread = [
            (file, folder)
            for file, folder in zip(files, folders, strict=True)
            if not self._is_parsed(folder, ledger)
        ]
        parsed_rows = self._parse(unread)
        if unread:
            ledger.refresh()
        locators = {one for folder in folders for one in self._locators(folder)}
        planned = plan(locators, ledger)
        self._fetch(planned.wanted)
        if planned.wanted:
            ledger.refresh()
        for one in planned.wanted:
            planned.fates[one.locator] = ledger.fate(one.key) or _UNKNOWN
        for locator in planned.gone:
            planned.fates[locator] = ledger.fate(locator) or _UNKNOWN
        told = self._tables(folders, planned.fates)
        ledger.keep_only(planned.keys)
        self._clean(folders)
        return {"parsed_rows": parsed_rows, "fetched": len(planned.wanted), **told}

    def _folder(self, file: SourceFile) -> str:
        """Return where the parsed rows of a file are kept."""
        key = parse_key(file, self._profile.ingest, self._profile.images, self._tasks)
        return f"parsed/{key}"

    def _is_parsed(self, folder: str, ledger: Ledger) -> bool:
        """Whether a file's rows are all there, and the images that came inside of them."""
        done = self._run.read_json(f"{FOLDER}/{folder}/done.json")
        if done is None or done["chunks"] != len(self._run.files(f"{FOLDER}/{folder}")):
            return False
        inside = {one for one in self._locators(folder) if one.startswith("bytes:")}
        return not plan(inside, ledger).gone

    def _locators(self, folder: str) -> set[str]:
        found: set[str] = set()
        for path in self._run.files(f"{FOLDER}/{folder}"):
            column = self._run.read_file(path, ["locators"])["locators"]
            found.update(pc.unique(pc.list_flatten(column)).to_pylist())
        return found

    def _parse(self, jobs: Sequence[tuple[SourceFile, str]]) -> int:
        """Read source files and return how many rows they had."""
        profile = self._profile
        for _, folder in jobs:
            self._run.delete(self._run.files(f"{FOLDER}/{folder}"))
        counts = {folder: [0, 0] for _, folder in jobs}
        read = partial(chunks, columns=Columns.of(profile.ingest.keys), chunk_rows=profile.ingest.chunk_rows)
        parse = Parser(self._run, profile.images, self._tasks)
        rows = 0
        try:
            for folder, count in each_of_stream(jobs, read, parse, concurrency=self._concurrency):
                counts[folder][0] += 1
                counts[folder][1] += count
                rows += count
                self._progress(rows, 0, "rows read")
        except Lost as error:
            names = ", ".join(jobs[place][0].name for place in error.items)
            raise RunError(
                f"workers died while reading {names}, as they do when memory runs out: lower"
                " ingest.chunk_rows or ingest.concurrency and run again"
            ) from None
        for folder, (parts, count) in counts.items():
            self._run.write_json(f"{FOLDER}/{folder}/done.json", {"chunks": parts, "rows": count})
        return rows

    def _fetch(self, wanted: Sequence[Wanted]) -> None:
        """Fetch references in blocks; what dies with its worker is tried again in smaller ones."""
        fetcher = Fetcher(self._run, self._profile.images)
        size = min(_BLOCK, -(-len(wanted) // (4 * self._concurrency)) or 1)
        left = list(wanted)
        done = 0
        for last in (False, False, True):
            size = 1 if last else size
            blocks = [left[start : start + size] for start in range(0, len(left), size)]
            try:
                for block, _ in each(blocks, fetcher, concurrency=self._concurrency):
                    done += len(block)
                    self._progress(done, len(wanted), "images fetched")
                return
            except Lost as error:
                left = [one for place in error.items for one in blocks[place]]
                size = max(1, size // 8)
        reason = (
            "worker lost: reading this image ended its process; shrink it, or give the workers more memory"
        )
        lost = Outcome(None, reason, retryable=True)
        write_fetched(self._run, self._profile.images, [(one.key, lost) for one in left])

    def _tables(self, folders: Sequence[str], fates: dict[str, Fate]) -> dict[str, Any]:
        """Write the tables, unless they stand there already, and return what the summary says of them."""
        digits = self._profile.storage.partition_digits
        table = fate_table(fates)
        key = content_id(json.dumps([list(folders), digits]), *map(_content, table.columns))
        stamp = self._run.read_json(_STAMP)
        if stamp is not None and stamp["key"] == key and stamp["files"] == self._standing():
            return {**stamp["told"], "written_files": 0}
        rows, files = self._resolve(folders, table)
        written = self._write(files, partitions(digits))
        for name in TABLES:
            standing = self._run.files(name)
            if not any(path in standing for path in written.files):
                # Readers look for the table even where it has no rows.
                first = partitions(digits)[0]
                written.files.append(self._run.write(name, first, SCHEMAS[name].empty_table()))
            self._run.delete(set(standing) - set(written.files))
        told = counted(rows, written.counts, written.reasons)
        self._run.write_json(_STAMP, {"key": key, "files": self._standing(), "told": told})
        return {**told, "written_files": written.changed}

    def _standing(self) -> dict[str, int]:
        """Return the files of the tables, with their sizes."""
        paths = sorted(path for name in TABLES for path in self._run.files(name))
        return {info.path[len(self._run.root) :]: info.size for info in self._run.fs.get_file_info(paths)}

    def _resolve(self, folders: Sequence[str], fates: pa.Table) -> tuple[int, dict[str, list[str]]]:
        self._drop("sorted")
        parts = [
            (place, path)
            for place, folder in enumerate(folders)
            for path in sorted(self._run.files(f"{FOLDER}/{folder}"))
        ]
        size = min(_GROUP, -(-len(parts) // (2 * self._concurrency)) or 1)
        groups = [
            Group(f"{start:06d}", tuple(parts[start : start + size])) for start in range(0, len(parts), size)
        ]
        rows = 0
        files: dict[str, list[str]] = {"images": sorted(self._run.files(f"{FOLDER}/pending"))}
        try:
            for done, (_, found) in enumerate(
                each(groups, Resolver(self._run, fates), concurrency=self._concurrency), 1
            ):
                rows += found.rows
                for kind, path in found.files.items():
                    files.setdefault(kind, []).append(path)
                self._progress(done, len(groups), "groups of rows resolved")
        except Lost as error:
            raise RunError(f"{error} while resolving rows: lower ingest.chunk_rows and run again") from None
        return rows, {kind: sorted(paths) for kind, paths in files.items()}

    def _write(self, files: Mapping[str, Sequence[str]], names: Sequence[str]) -> Written:
        size = -(-len(names) // _WRITERS)
        jobs = [names[start : start + size] for start in range(0, len(names), size)]
        written = Written()
        try:
            for done, (_, part) in enumerate(
                each(jobs, Writer(self._run, files), concurrency=self._concurrency), 1
            ):
                written.add(part)
                self._progress(min(done * size, len(names)), len(names), "partitions written")
        except Lost as error:
            raise RunError(
                f"{error} while writing tables: raise storage.partition_digits, so that a partition fits"
                " a worker's memory, and run again"
            ) from None
        return written

    def _clean(self, folders: Sequence[str]) -> None:
        """Delete what the tables now hold, and what no source needs any more."""
        self._drop("pending")
        self._drop("sorted")
        selector = pafs.FileSelector(self._run.path(FOLDER, "parsed"), allow_not_found=True)
        needed = {self._run.path(FOLDER, folder) for folder in folders}
        for info in self._run.fs.get_file_info(selector):
            if info.type == pafs.FileType.Directory and info.path not in needed:
                self._run.fs.delete_dir(info.path)

    def _drop(self, folder: str) -> None:
        self._run.delete(self._run.files(f"{FOLDER}/{folder}"))


def _content(column: pa.ChunkedArray) -> bytes:
    return json.dumps(column.to_pylist()).encode()
