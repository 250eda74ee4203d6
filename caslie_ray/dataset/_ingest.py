"""`ingest`: sources in the released format become the tables samples, images, views and rejects of a run.

The tables are a function of the sources and settings: another set of sources replaces the tables. A re-run does only
what is missing: it does not read an unchanged source file again, fetch a reference again (unless it failed for a
retryable reason, or `images.revisit` says so), or rewrite a table file whose rows are the same. A job that is killed at
any point is continued.

Steps, each from files to files, so that the driver holds counts, and paths by partition, bucket and chunk:

1. *parse* (`_parse`): source files become parsed rows in chunks, and images inside rows are decoded.
2. *shuffle* (`_shuffle`): references are sorted by the hash of their locator, which divides them into buckets.
3. *fetch* (`_fetcher`): a bucket's distinct references are compared with the ledger, and what it lacks is fetched.
4. *join* (`_join`): the results of each bucket are written by group of chunks.
5. *resolve* (`_resolve`): image ids replace references, and rows are sorted by partition.
6. *write* (`_table_writer`): each partition is written, with images from the table or from fetched blocks.

The number of buckets follows from the references that the parse step counted. Up to 20,000 there is one, which the
driver processes itself in steps 2 and 4, since starting tasks would take longer.

What limits it at 10⁹ rows: steps 3 to 6 read a range of each sorted file, so there are groups × buckets and groups ×
partitions requests. A group has up to 50,000 rows, and a partition must fit into a worker's memory: 20,000 groups and
65,536 partitions make some 4·10⁹ requests of a few milliseconds, more than fetching costs; up to 10⁸ rows they cost
little. The driver holds a path of some 150 bytes per chunk, so `ingest.chunk_rows` should then be 10,000 or more. A
fetched image is written twice, once to a block and once to the table.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from caslie_ray.catalogue.contexts import contexts_of
from caslie_ray.cluster.connection import connect
from caslie_ray.dataset._build_tables import STAMP, build_tables
from caslie_ray.dataset._cache import Cache, Parsed
from caslie_ray.dataset._deduplication import References
from caslie_ray.dataset._headers import request_headers
from caslie_ray.dataset._parse import Parser
from caslie_ray.dataset._parse_files import parse_files
from caslie_ray.dataset._roots import Root, given_roots, roots_of
from caslie_ray.dataset._shuffle import Group, groups_of
from caslie_ray.dataset._sources import SourceFile, find_sources
from caslie_ray.dataset.summary import IngestSummary, plural
from caslie_ray.errors import DamagedFile, RunError
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS, Task

__all__ = ["ingest"]

log = logging.getLogger(__name__)

_NAMES = 3


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
    """The steps in order; each reads the files that the one before has written to the run."""

    def __init__(self, run: Run, profile: Profile, quiet: bool, tasks: Mapping[str, Task]) -> None:
        self._run = run
        self._profile = profile
        self._quiet = quiet
        self._headers = request_headers(profile.images, os.environ)
        self._parser = Parser(run, profile.images, tasks, contexts_of(profile.contexts))
        self._cache = Cache(run, profile, tasks)
        self._done: Counter[str] = Counter(parsed_rows=0, fetched=0, written_files=0)
        self._revisited: set[str] = set()

    def bring(self, files: Sequence[SourceFile]) -> dict[str, Any]:
        """Do all steps and return their part of the summary.

        Damaged files of an earlier run are discarded, and the steps repeated: they replace what is missing.
        """
        folders = [self._cache.folder(file) for file in files]
        discarded: set[str] = set()
        missing = False
        while True:
            try:
                counts = self._bring(files, folders)
            except DamagedFile as error:
                if error.path in discarded or not error.path.startswith(f"{self._run.root}/"):
                    raise  # a file that this job has written cannot be read either
                discarded |= self._cache.discard_damaged(error.path)
                continue
            if counts is not None:
                self._cache.clean(folders)
                return {**self._done, **counts}
            if missing:
                raise RunError(f"images are gone from {self._run.label}: run ingest again")
            missing = True

    def _bring(self, files: Sequence[SourceFile], folders: Sequence[str]) -> dict[str, Any] | None:
        """Do all steps; return None where the ledger had images that are in no file, and has them no longer."""
        known = [self._cache.parsed(folder) for folder in folders]
        parsed = self._parse(files, folders, known, {place for place, found in enumerate(known) if found is None})
        roots = self._roots(files)
        references, groups = self._references(parsed)
        gone = self._fetch(references, roots)
        if gone:
            # Images inside rows are only in the sources.
            parsed = self._parse(files, folders, parsed, gone)
            references, groups = self._references(parsed)
            self._fetch(references, roots, again=True)
        sources = [(file.name, folder) for file, folder in zip(files, folders, strict=True)]
        built = build_tables(
            self._run, self._profile, self._cache, groups, references.join(), sources, quiet=self._quiet
        )
        self._done["written_files"] += built.changed
        if built.missing:
            references.forget(built.missing)
        return built.counts

    def _fetch(self, references: References, roots: Sequence[Root], *, again: bool = False) -> set[int]:
        """Fetch references; return the positions of the sources whose rows hold images that are gone from the run."""
        counts = references.fetch(roots, again=again, revisited=self._revisited)
        self._done["fetched"] += counts.fetched
        found = counts.revisits
        if found.asked or found.failed:
            log.info(
                "%s asked for again (images.revisit: %s): %s not modified, %s changed",
                plural(found.asked, "URL"),
                self._profile.images.revisit,
                f"{found.not_modified:,}",
                f"{found.changed:,}",
            )
        if found.failed:
            log.warning(
                "%s could not be fetched again (images.revisit): the earlier results are kept; run ingest again later",
                plural(found.failed, "URL"),
            )
        return counts.gone

    def _parse(
        self, files: Sequence[SourceFile], folders: Sequence[str], known: Sequence[Parsed | None], unread: set[int]
    ) -> list[Parsed | None]:
        """Parse the source files at these positions; return the parsed rows of all files."""
        if not unread:
            return list(known)
        connect()
        # The stamp has the names of folders only, which stay the same where files are read again.
        self._run.delete([self._run.path(STAMP)])
        jobs = [(files[place], folders[place]) for place in sorted(unread)]
        self._done["parsed_rows"] += parse_files(
            self._run, self._profile, self._parser, self._cache, jobs, quiet=self._quiet
        )
        return [
            self._cache.parsed(folders[at], by_this_job=True) if at in unread else found
            for at, found in enumerate(known)
        ]

    def _references(self, parsed: Sequence[Parsed | None]) -> tuple[References, list[Group]]:
        """Return the shuffled references of all parsed rows, and the groups of these rows."""
        settings = self._profile.ingest
        chunks = [(place, path) for place, found in enumerate(parsed) if found for path in found.chunks]
        groups = groups_of(chunks, settings.chunk_rows, settings.concurrency)
        count = sum(found.references for found in parsed if found)
        references = References(self._run, self._profile, self._headers, count, quiet=self._quiet)
        references.shuffle(groups)
        return references, groups

    def _roots(self, files: Sequence[SourceFile]) -> list[Root]:
        """Return the roots below which the files of all references lie."""
        images = self._profile.images
        given = given_roots(images)
        found = [roots_of(file.path, file.source, images.root is not None, given) for file in files]
        return list(dict.fromkeys(root for roots in found for root in roots.allowed))
