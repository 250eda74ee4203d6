"""What an `ingest` would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.dataset._cache import Cache
from caslie_ray.dataset._catalogue import CatalogueSettings
from caslie_ray.dataset._columns import Columns
from caslie_ray.dataset._fetcher import Survey
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._ray import RETRIES, TASK_CPUS
from caslie_ray.dataset._reading import read_source
from caslie_ray.dataset._references_ledger import Ledger, foreign_files, reference_hash
from caslie_ray.dataset._shuffle import bucket_names
from caslie_ray.dataset._sources import SourceFile, find_sources
from caslie_ray.profiles import ImageSettings, Profile
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS, Task

__all__ = ["IngestPlan", "plan_ingest"]


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """The plan of an ingest.

    Attributes:
        files: source files.
        unread: those of them that must be read.
        rows: rows of all of them.
        unread_rows: rows that must be read.
        references: distinct references of the rows that were read before.
        to_fetch: those of them that must be fetched, failures that may pass among them. No file is looked at: one that
            was fetched counts as unchanged.
        revisit: `images.revisit`: whether URLs that were fetched are requested again.
    """

    files: int
    unread: int
    rows: int
    unread_rows: int
    references: int
    to_fetch: int
    revisit: str = "never"

    def lines(self) -> list[str]:
        """Return the plan as a person reads it."""
        lines = [
            f"files        {self.files:,}",
            f"rows         {self.rows:,}",
            f"to read      {self.unread_rows:,} rows in {self.unread:,} files",
            f"references   {self.references:,} distinct in the rows read before",
            f"to fetch     {self.to_fetch:,} of them",
        ]
        if self.unread:
            lines.append("the references of unread rows are counted once they are read")
        elif self.revisit != "never":
            lines.append(f"URLs that were fetched before are requested again: images.revisit={self.revisit}")
        elif not self.to_fetch:
            lines.append("nothing to read or fetch")
        return lines


class _Counts(NamedTuple):
    references: int
    to_fetch: int
    gone: frozenset[int]


class _Counter:
    """Counts the references of a bucket; nothing is written."""

    def __init__(
        self, run: Run, images: ImageSettings, chunks: Sequence[tuple[int, str]], foreign: Sequence[str]
    ) -> None:
        self._run = run
        self._images = images
        self._chunks = list(chunks)
        self._foreign = list(foreign)

    def __call__(self, bucket: str) -> _Counts:
        ledger = Ledger(self._run, self._images, bucket, foreign=self._foreign)
        schema = pa.schema([("locator", pa.string()), ("place", pa.int32())])
        parts = [schema.empty_table()]
        for place, path in self._chunks:
            column = self._run.read_file(path, ["locators"])["locators"]
            found = pc.unique(pc.list_flatten(column)).to_pylist()
            own = [one for one in found if reference_hash(one).startswith(bucket)]
            parts.append(pa.table([own, [place] * len(own)], schema=schema))
        survey = Survey.of(pa.concat_tables(parts), ledger)
        files = len(set(survey.files) - ledger.unchanged_files())
        return _Counts(survey.references, len(survey.pending) + files, frozenset(survey.gone))


def plan_ingest(
    run: Run, sources: Sequence[str], profile: Profile, *, tasks: Mapping[str, Task] | None = None
) -> IngestPlan:
    """Survey sources and what a run has of them; the run is not changed.

    Raises:
        SourceError: a source is not there.
    """
    files, _ = find_sources(sources, run)
    cache = Cache(run, profile, TASKS if tasks is None else tasks)
    folders = map(cache.folder, files)
    parsed = {place: found for place, folder in enumerate(folders) if (found := cache.parsed(folder)) is not None}
    references = to_fetch = 0
    while True:
        count = sum(found.references for found in parsed.values())
        buckets = bucket_names(count, profile.ingest.concurrency)
        chunks = [(place, path) for place, found in parsed.items() for path in found.chunks]
        counter = _Counter(run, profile.images, chunks, foreign_files(run, buckets))
        counts = list(
            map_partitions(
                counter,
                buckets,
                distributed=len(buckets) > 1,
                concurrency=profile.ingest.concurrency,
                num_cpus=TASK_CPUS,
                retries=RETRIES,
            )
        )
        gone = {place for found in counts for place in found.gone}
        if not gone:
            references = sum(found.references for found in counts)
            to_fetch = sum(found.to_fetch for found in counts)
            break
        parsed = {place: found for place, found in parsed.items() if place not in gone}
    unread = [_rows(file, profile) for place, file in enumerate(files) if place not in parsed]
    rows = sum(found.rows for found in parsed.values()) + sum(unread)
    return IngestPlan(len(files), len(unread), rows, sum(unread), references, to_fetch, profile.images.revisit)


def _rows(file: SourceFile, profile: Profile) -> int:
    settings = profile.ingest
    columns, catalogue = Columns.of(settings.keys), CatalogueSettings.of(profile)
    return sum(1 for _ in read_source(file, columns, settings.encoding, Limits.of(settings), catalogue))
