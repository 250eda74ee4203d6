"""`ingest`: sources in the released format become the tables samples, images, views and rejects of a run.

The tables are a function of the sources and settings: another set of sources replaces what was there.
What a run already holds is not done again: a source file that is unchanged is not read, a reference that
was fetched is not fetched (unless it failed for a reason that may pass), and files that would be written
anew with the same rows are left alone.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from caslie_ray.cluster.connection import connect
from caslie_ray.cluster.partition_map import WorkersLost, map_partitions
from caslie_ray.dataset._fetch import Fate, Fetcher, Ledger, Wanted, fate_table, plan, write_fetched
from caslie_ray.dataset._held import Held
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._lookup import look_up
from caslie_ray.dataset._parse import Chunk, Parsed, Parser, chunks
from caslie_ray.dataset._ray import RETRIES, TASK_CPUS, each_of_stream
from caslie_ray.dataset._resolve import Group, Resolver
from caslie_ray.dataset._tables import TABLES, Writer, Written
from caslie_ray.dataset.columns import Columns
from caslie_ray.dataset.headers import request_headers
from caslie_ray.dataset.images import Outcome, task_memory
from caslie_ray.dataset.reading import Record, SourceFile, find_sources
from caslie_ray.dataset.roots import Root, given_roots, roots_of
from caslie_ray.dataset.summary import IngestSummary, counted, plural, readings
from caslie_ray.dataset.working import FOLDER
from caslie_ray.errors import DamagedFile, RunError
from caslie_ray.hashing import content_id
from caslie_ray.monitoring.progress import Progress
from caslie_ray.profiles import Profile
from caslie_ray.storage.partitions import partition_names
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import TASKS, Task

__all__ = ["ingest"]

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_UNKNOWN = Fate(None, "lost: the image was read and is gone; run ingest again", retryable=True)
_STAMP = f"{FOLDER}/tables.json"
_BLOCK = 256
_GROUP = 10
_WRITERS = 64
_NAMES = 3
_READER_MEMORY = 4  # times the longest row
_DIED = (
    "unreadable file: reading it ended its process, as happens where memory runs out; split it, or give workers more"
    " memory"
)


def ingest(
    run: Run,
    sources: Sequence[str],
    profile: Profile,
    *,
    quiet: bool = False,
    tasks: Mapping[str, Task] | None = None,
) -> IngestSummary:
    """Bring sources into a run.

    Args:
        run: where the tables go.
        sources: files and folders by path or URI, in the released format or near it.
        profile: its parts `images`, `ingest` and `storage` count.
        quiet: show no progress.
        tasks: the tasks to read; those that are installed where None.

    Raises:
        SourceError: a source is not there, or is a run.
        ProfileError: a request header takes its value from an environment variable that is not set.
        RunError: the run cannot be written, or workers die again and again.
    """
    started = time.monotonic()
    files, skipped = find_sources(sources, run)
    if skipped.run_files:
        folders = dict.fromkeys(skipped.run_folders)
        named = ", ".join(list(folders)[:_NAMES]) + (", …" if len(folders) > _NAMES else "")
        log.info(
            "%s of the source folders left out, because they belong to runs: %s",
            plural(skipped.run_files, "file"),
            named,
        )
    counts = _Ingest(run, profile, quiet, TASKS if tasks is None else tasks).bring(files)
    seconds = round(time.monotonic() - started, 3)
    for how, found in counts["read_as"].items():
        rows, of_files = plural(found["rows"], "row"), plural(found["files"], "file")
        log.info("%s: %s of %s, such as %s", how, rows, of_files, found["names"][0])
    return IngestSummary(
        files=len(files), ignored_files=skipped.others, run_files=skipped.run_files, seconds=seconds, **counts
    )


class _Ingest:
    """The steps, in order; each takes what the step before has left in the run."""

    def __init__(self, run: Run, profile: Profile, quiet: bool, tasks: Mapping[str, Task]) -> None:
        self._run = run
        self._profile = profile
        self._quiet = quiet
        self._tasks = tasks
        self._headers = request_headers(profile.images, os.environ)
        self._held = Held(run, profile, tasks)
        self._concurrency = profile.ingest.concurrency
        self._done: Counter[str] = Counter()

    def bring(self, files: Sequence[SourceFile]) -> dict[str, Any]:
        """Do all steps and return their part of the summary.

        Damaged files of an earlier run are discarded, and the steps done again: they replace what is missing.
        """
        discarded: set[str] = set()
        while True:
            try:
                return self._bring(files)
            except DamagedFile as error:
                if error.path in discarded or not error.path.startswith(f"{self._run.root}/"):
                    raise  # what was written just now cannot be read either
                discarded |= self._held.discard_damaged(error.path)

    def _bring(self, files: Sequence[SourceFile]) -> dict[str, Any]:
        ledger = Ledger(self._run, self._profile.images)
        folders = [self._held.folder(file) for file in files]
        unread = [
            (file, folder)
            for file, folder in zip(files, folders, strict=True)
            if self._held.rows(folder, ledger) is None
        ]
        if unread:
            connect()
            self._done["parsed_rows"] += self._parse(unread)
            ledger.refresh()
        locators = {one for folder in folders for one in self._held.locators(folder)}
        planned = plan(locators, ledger)
        roots = self._roots(files)
        found = look_up(planned.files, roots, self._concurrency)
        failures = planned.place_files(found, ledger)
        write_fetched(self._run, self._profile.images, failures)
        if planned.wanted:
            connect()
            self._fetch(planned.wanted, roots)
            self._done["fetched"] += len(planned.wanted)
        if planned.wanted or failures:
            ledger.refresh()
        for one in planned.wanted:
            planned.fates[one.locator] = ledger.fate(one.key) or _UNKNOWN
        for locator in planned.gone:
            planned.fates[locator] = ledger.fate(locator) or _UNKNOWN
        counts = self._tables(files, folders, planned.fates)
        ledger.keep_only(planned.keys)
        self._held.clean(folders)
        return {"parsed_rows": self._done["parsed_rows"], "fetched": self._done["fetched"], **counts}

    def _parse(self, jobs: Sequence[tuple[SourceFile, str]]) -> int:
        """Read source files and return how many rows they had.

        Files whose reader dies are read again one by one, and are a reject each if it dies again.
        """
        settings = self._profile.ingest
        limits = Limits.of(settings)
        read = partial(
            chunks,
            columns=Columns.of(settings.keys),
            chunk_rows=settings.chunk_rows,
            encoding=settings.encoding,
            limits=limits,
        )
        parse = Parser(self._run, self._profile.images, self._tasks)
        memory = min(_READER_MEMORY * limits.row_bytes, 1 << 30)
        found: dict[str, list[Parsed]] = {}
        left = list(jobs)
        # The stamp holds the names of folders alone, which stay the same where files are read again.
        self._run.delete([self._run.path(_STAMP)])
        with self._progress("read", None, "rows") as progress:
            for concurrency, retries in ((self._concurrency, RETRIES), (1, 0)):
                for _, folder in left:
                    self._run.delete(self._held.chunks(folder))
                    found[folder] = []
                try:
                    for part in each_of_stream(
                        left,
                        read,
                        parse,
                        concurrency=concurrency,
                        memory=memory,
                        part_memory=task_memory(self._profile.images, files=1),
                        retries=retries,
                    ):
                        found[part.folder].append(part)
                        progress.add(part.rows)
                    left = []
                except WorkersLost as error:
                    left = [left[place] for place in error.items]
                if not left:
                    break
        for file, folder in left:
            self._run.delete(self._held.chunks(folder))
            reject = Record(0, file.name, None, _DIED)
            found[folder] = [parse(Chunk(file, folder, 0, (pickle.dumps(reject),)))]
        died = {folder for _, folder in left}
        for folder, parts in found.items():
            done: dict[str, Any] = {"chunks": len(parts), "rows": sum(part.rows for part in parts)}
            if any(part.limited for part in parts):
                done["limits"] = self._held.limits
            if folder in died:
                done["limits"] = None  # it may have been the machine
            self._run.write_json(f"{FOLDER}/{folder}/done.json", done)
        return sum(part.rows for parts in found.values() for part in parts)

    def _roots(self, files: Sequence[SourceFile]) -> list[Root]:
        """Return the roots below which the files of all references lie."""
        images = self._profile.images
        given = given_roots(images)
        found = [roots_of(file.path, file.source, images.root is not None, given) for file in files]
        return list(dict.fromkeys(root for roots in found for root in roots.allowed))

    def _fetch(self, wanted: Sequence[Wanted], roots: Sequence[Root]) -> None:
        """Fetch references in blocks; what dies with its worker is tried again in smaller ones."""
        images = self._profile.images
        fetcher = Fetcher(self._run, images, self._headers, roots)
        memory = task_memory(images, files=images.concurrency)
        size = min(_BLOCK, -(-len(wanted) // (4 * self._concurrency)))
        left = list(wanted)
        rejected = 0
        with self._progress("fetch", len(wanted), "images") as progress:
            for alone in (False, False, True):
                size = 1 if alone else size
                blocks = [left[start : start + size] for start in range(0, len(left), size)]
                try:
                    for fetched, refused in self._each(blocks, fetcher, memory):
                        rejected += refused
                        progress.add(fetched, f"{rejected:,} rejected" if rejected else "")
                    return
                except WorkersLost as error:
                    left = [one for place in error.items for one in blocks[place]]
                    size = max(1, size // 8)
        reason = "worker lost: reading this image ended its process; shrink it, or give workers more memory"
        lost = Outcome(None, reason, retryable=True)
        write_fetched(self._run, self._profile.images, [(one.key, lost) for one in left])

    def _tables(self, sources: Sequence[SourceFile], folders: Sequence[str], fates: dict[str, Fate]) -> dict[str, Any]:
        """Write the tables, unless they stand there already, and return what the summary says of them."""
        names = partition_names(self._profile.storage.partition_digits)
        table = fate_table(fates)
        key = content_id(json.dumps([list(folders), len(names)]), *map(_content, table.columns))
        stamp = self._run.read_json(_STAMP)
        if isinstance(stamp, dict) and stamp.get("key") == key and stamp.get("files") == self._held.table_files():
            return {**stamp["told"], "written_files": 0}
        connect()
        rows, notes, files = self._resolve(folders, table)
        written = self._write(files, names)
        for name in TABLES:
            existing = self._run.files(name)
            if not any(path in existing for path in written.files):
                # Readers look for the table even where it has no rows.
                written.files.append(self._run.write(name, names[0], SCHEMAS[name].empty_table()))
            self._run.delete(set(existing) - set(written.files))
        counts = counted(rows, written.counts, written.reasons, written.examples)
        counts["read_as"] = readings(notes, [source.name for source in sources])
        self._run.write_json(_STAMP, {"key": key, "files": self._held.table_files(), "told": counts})
        return {**counts, "written_files": written.changed}

    def _resolve(
        self, folders: Sequence[str], fates: pa.Table
    ) -> tuple[int, Counter[tuple[int, str]], dict[str, list[str]]]:
        """Sort the parsed rows by partition; return how many they are, how they were read, and the files by kind."""
        self._run.delete(self._run.files(f"{FOLDER}/sorted"))
        parts = [(place, path) for place, folder in enumerate(folders) for path in self._held.chunks(folder)]
        size = min(_GROUP, -(-len(parts) // (2 * self._concurrency))) or 1
        starts = range(0, len(parts), size)
        groups = [Group(f"{start:06d}", tuple(parts[start : start + size])) for start in starts]
        rows = 0
        notes: Counter[tuple[int, str]] = Counter()
        files: dict[str, list[str]] = {"images": sorted(self._run.files(f"{FOLDER}/pending"))}
        try:
            for found in self._each(groups, Resolver(self._run, fates)):
                rows += found.rows
                notes += found.notes
                for kind, path in found.files.items():
                    files.setdefault(kind, []).append(path)
        except WorkersLost as error:
            raise RunError(f"{error} while sorting rows: lower ingest.chunk_rows and run again") from None
        return rows, notes, {kind: sorted(paths) for kind, paths in files.items()}

    def _write(self, files: Mapping[str, Sequence[str]], names: Sequence[str]) -> Written:
        """Write the partitions."""
        size = -(-len(names) // _WRITERS)
        jobs = [names[start : start + size] for start in range(0, len(names), size)]
        written = Written()
        try:
            with self._progress("write", len(names), "partitions") as progress:
                for part in self._each(jobs, Writer(self._run, files)):
                    written.add(part)
                    progress.add(part.partitions)
        except WorkersLost as error:
            raise RunError(
                f"{error} while writing tables: raise storage.partition_digits, so that a partition fits"
                " a worker's memory, and run again"
            ) from None
        return written

    def _each(self, items: Sequence[_Item], work: Callable[[_Item], _Result], memory: int = 0) -> Iterator[_Result]:
        return map_partitions(
            work,
            items,
            distributed=True,
            concurrency=self._concurrency,
            num_cpus=TASK_CPUS,
            memory=memory,
            retries=RETRIES,
        )

    def _progress(self, name: str, total: int | None, unit: str) -> Progress:
        return Progress(name, total, unit, quiet=self._quiet)


def _content(column: pa.ChunkedArray) -> bytes:
    return json.dumps(column.to_pylist()).encode()
