"""Parsing source files in tasks; files whose reader dies are read again alone, and are a reject if it dies again."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from caslie_ray.cluster.partition_map import WorkersLost
from caslie_ray.dataset._cache import Cache
from caslie_ray.dataset._catalogue import CatalogueSettings
from caslie_ray.dataset._columns import Columns
from caslie_ray.dataset._fetching import task_memory
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._parse import Chunk, ParsedChunk, Parser, chunks
from caslie_ray.dataset._ray import RETRIES, each_of_stream
from caslie_ray.dataset._reading import Record
from caslie_ray.dataset._sources import SourceFile
from caslie_ray.monitoring.progress import Progress
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run

__all__ = ["parse_files"]

_READER_MEMORY = 4  # times the longest row
_MOST_READER_MEMORY = 1 << 30
_DIED = (
    "unreadable file: reading it ended its process, as happens where memory runs out; split it, or give workers more"
    " memory"
)


@dataclass(slots=True)
class _Counts:
    chunks: int = 0
    rows: int = 0
    references: int = 0
    limited: bool = False

    def add(self, part: ParsedChunk) -> None:
        self.chunks += 1
        self.rows += part.rows
        self.references += part.references
        self.limited = self.limited or part.limited


def parse_files(
    run: Run, profile: Profile, parse: Parser, cache: Cache, jobs: Sequence[tuple[SourceFile, str]], *, quiet: bool
) -> int:
    """Parse source files and return how many rows they have.

    Args:
        run: where parsed rows are written.
        profile: its parts `images` and `ingest` count.
        parse: parses a chunk.
        cache: marks the files as parsed.
        jobs: the files, each with its folder below ``RUN/ingest``.
        quiet: show no progress.
    """
    settings = profile.ingest
    limits = Limits.of(settings)
    read = partial(
        chunks,
        columns=Columns.of(settings.keys),
        chunk_rows=settings.chunk_rows,
        encoding=settings.encoding,
        limits=limits,
        catalogue=CatalogueSettings.of(profile),
    )
    counts: dict[str, _Counts] = {}
    left = list(jobs)
    with Progress("read", None, "rows", quiet=quiet) as progress:
        for concurrency, retries in ((settings.concurrency, RETRIES), (1, 0)):
            for _, folder in left:
                run.delete(cache.chunks(folder))
                counts[folder] = _Counts()
            try:
                for part in each_of_stream(
                    left,
                    read,
                    parse,
                    concurrency=concurrency,
                    memory=min(_READER_MEMORY * limits.row_bytes, _MOST_READER_MEMORY),
                    part_memory=task_memory(profile.images, files=1),
                    retries=retries,
                ):
                    counts[part.folder].add(part)
                    progress.add(part.rows)
                left = []
            except WorkersLost as error:
                left = [left[place] for place in error.items]
            if not left:
                break
    for file, folder in left:
        run.delete(cache.chunks(folder))
        reject = Record(0, file.name, None, _DIED)
        counts[folder] = _Counts()
        counts[folder].add(parse(Chunk(file, folder, 0, (pickle.dumps(reject),))))
    died = {folder for _, folder in left}
    for folder, found in counts.items():
        over: dict[str, Any] = {"limits": cache.limits} if found.limited else {}
        if folder in died:
            over = {"limits": None}  # it may have been the machine
        cache.mark_parsed(folder, chunks=found.chunks, rows=found.rows, references=found.references, **over)
    return sum(found.rows for found in counts.values())
