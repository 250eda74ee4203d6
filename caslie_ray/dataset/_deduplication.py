"""The references of a job, from parsed rows to results, as the driver sees them: buckets, paths and counts.

Each step reads files and writes files. One bucket is small and is processed here, except for what opens files that
rows name; several buckets are processed by tasks.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from caslie_ray.cluster.partition_map import WorkersLost, map_partitions
from caslie_ray.dataset._fetcher import BucketReader, Fetcher, Revisits, SurveyCounts
from caslie_ray.dataset._fetching import task_memory
from caslie_ray.dataset._headers import RequestHeaders
from caslie_ray.dataset._join import Forgetter, Joiner
from caslie_ray.dataset._ray import RETRIES, TASK_CPUS, each_of_stream
from caslie_ray.dataset._references_ledger import foreign_files
from caslie_ray.dataset._roots import Root
from caslie_ray.dataset._shuffle import Group, Shuffler, bucket_names
from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.monitoring.progress import Progress
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run

__all__ = ["FetchCounts", "References"]

_BLOCK = 256
_TRIES = (1, 8, 256)  # a block is divided by this
_REFERENCE_BYTES = 2 << 10
_WORKER_BYTES = 512 << 20
_LEDGER_FILES = 100

Item = TypeVar("Item")
Result = TypeVar("Result")


class FetchCounts(NamedTuple):
    """What a job has fetched.

    Attributes:
        fetched: references that were to be fetched, without those that their server has not modified.
        gone: positions of the sources whose rows hold images that are no longer in the run.
        revisits: URLs that the ledger had a result of.
    """

    fetched: int
    gone: set[int]
    revisits: Revisits


class References:
    """Shuffles, fetches and joins references; call the methods in this order.

    Args:
        run: where the files are.
        profile: its parts `images` and `ingest` count.
        headers: the headers of downloads.
        references: how many there are, repeated ones included; the number of buckets follows from it.
        quiet: show no progress.
        buckets: the buckets, where not by number.
    """

    def __init__(
        self,
        run: Run,
        profile: Profile,
        headers: RequestHeaders,
        references: int,
        *,
        quiet: bool = False,
        buckets: Sequence[str] = (),
    ) -> None:
        self._run = run
        self._images = profile.images
        self._headers = headers
        self._concurrency = profile.ingest.concurrency
        self._quiet = quiet
        self._buckets = list(buckets) or bucket_names(references, self._concurrency)
        self._memory = _WORKER_BYTES + _REFERENCE_BYTES * references // len(self._buckets)
        self._references: list[str] = []
        self._moved: list[str] = []
        self._foreign: list[str] = []
        self._plans: dict[str, str] = {}
        self._rejected = 0
        self._revisits = Revisits()

    def shuffle(self, groups: Sequence[Group]) -> None:
        """Write the references of the groups by bucket, and ledger rows that are in the folder of another bucket."""
        self._foreign = foreign_files(self._run, self._buckets)
        starts = range(0, len(self._foreign), _LEDGER_FILES)
        moving = [Group(f"{at:08d}", ledger=tuple(self._foreign[at : at + _LEDGER_FILES])) for at in starts]
        self._references, self._moved, self._plans = [], [], {}
        for found in self._each([*groups, *moving], Shuffler(self._run)):
            if found.references is not None:
                self._references.append(found.references)
            if found.ledger is not None:
                self._moved.append(found.ledger)
        self._references.sort()
        self._moved.sort()

    def fetch(self, roots: Sequence[Root], *, again: bool = False, revisited: set[str] | None = None) -> FetchCounts:
        """Fetch what the ledger lacks; blocks whose worker dies are divided and tried again.

        Args:
            roots: what may be opened.
            again: whether sources with images that are gone were read again.
            revisited: buckets whose URLs this job has asked for again, finer buckets included; those of this call are
                added. The others are asked for again as `images.revisit` says, none of them where this is None.
        """
        one = self._buckets == [""]
        self._revisits = Revisits()
        revisited = {""} if revisited is None or self._images.revisit == "never" else revisited
        if one:
            survey = self._reader(roots, revisit=_unvisited(self._buckets, revisited)).survey("")
            if not (survey.files or survey.pending) or (survey.gone and not again):
                return FetchCounts(0, survey.gone, self._revisits)
        counts: dict[str, SurveyCounts] = {}
        left: Sequence[str] = self._buckets
        with Progress("fetch", None, "images", quiet=self._quiet) as progress:
            for divisor in _TRIES:
                # What failed in this job, though retryable, is left to the next one.
                only_new = divisor > 1 or (again and not one)
                left = self._fetch_buckets(left, roots, divisor, only_new, counts, revisited, progress)
                if not left:
                    break
        revisited.add("")
        self._plans = {bucket: found.plan for bucket, found in counts.items()}
        gone = {place for found in counts.values() for place in found.gone}
        # Those whose worker died have no outcome.
        self._revisits.failed += max(0, sum(found.revisits for found in counts.values()) - self._revisits.asked)
        fetched = sum(found.pending for found in counts.values()) - self._revisits.not_modified
        return FetchCounts(fetched, gone, self._revisits)

    def _fetch_buckets(
        self,
        buckets: Sequence[str],
        roots: Sequence[Root],
        divisor: int,
        only_new: bool,
        counts: dict[str, SurveyCounts],
        revisited: set[str],
        progress: Progress,
    ) -> list[str]:
        """Fetch what buckets lack, and return those of which a worker died.

        A store that does not answer costs one wait, not one per bucket: with references to stores, buckets are read in
        waves, and each wave skips the stores that were silent in the one before.
        """
        lost: list[str] = []
        fetcher = Fetcher(self._run, self._images, self._headers, roots)
        for wave in _waves(buckets, any(root.store for root in roots)):
            silent = frozenset(store for found in counts.values() for store in found.silent)
            reader = self._reader(roots, max(1, _BLOCK // divisor), only_new, silent, _unvisited(wave, revisited))
            parts = each_of_stream(
                wave,
                reader,
                fetcher,
                concurrency=self._concurrency,
                memory=self._memory,
                part_memory=task_memory(self._images, files=self._images.concurrency),
                block_bytes=1,
            )
            try:
                for part in parts:
                    if isinstance(part, SurveyCounts):
                        first = counts.setdefault(part.bucket, part)
                        counts[part.bucket] = part._replace(pending=first.pending, revisits=first.revisits)
                        revisited.add(part.bucket)
                        progress.total = sum(found.pending for found in counts.values())
                    else:
                        self._rejected += part.rejected
                        self._revisits.add(part.revisits)
                        progress.add(part.count, f"{self._rejected:,} rejected" if self._rejected else "")
            except WorkersLost as error:
                lost += [wave[at] for at in error.items]
        return lost

    def _reader(
        self,
        roots: Sequence[Root],
        block: int = 1,
        only_new: bool = False,
        silent: frozenset[str] = frozenset(),
        revisit: frozenset[str] = frozenset(),
    ) -> BucketReader:
        blocks = -(-4 * self._concurrency // len(self._buckets))
        return BucketReader(
            self._run,
            self._images,
            self._references,
            self._moved,
            roots,
            block,
            blocks,
            silent,
            only_new=only_new,
            revisit=revisit,
            attempt=uuid.uuid4().hex[:12],
        )

    def join(self) -> tuple[list[str], str]:
        """Return the paths of the results by group, and a hash of all results; the ledger then holds nothing else."""
        joiner = Joiner(self._run, self._images, self._references, self._moved, self._plans)
        found = sorted(self._each(self._buckets, joiner))
        self._run.delete(self._foreign)
        self._foreign, self._moved = [], []
        return [path for _, path, _ in found if path is not None], content_id(*(digest for *_, digest in found))

    def forget(self, missing: Sequence[str]) -> None:
        """Remove results from the ledger whose images are in no file; `missing` are files with their ids."""
        for _ in self._each(self._buckets, Forgetter(self._run, self._images, missing)):
            pass
        self._run.delete(missing)

    def _each(self, items: Sequence[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
        try:
            yield from map_partitions(
                work,
                items,
                distributed=self._buckets != [""],
                concurrency=self._concurrency,
                num_cpus=TASK_CPUS,
                memory=self._memory,
                retries=RETRIES,
            )
        except WorkersLost as error:
            raise RunError(
                f"{error} while sorting references: give workers more memory, or lower ingest.chunk_rows; then run"
                " ingest again"
            ) from None


def _unvisited(buckets: Sequence[str], revisited: set[str]) -> frozenset[str]:
    """Return the buckets that are not among others, nor part of one."""
    return frozenset(
        bucket for bucket in buckets if not any(bucket[:digits] in revisited for digits in range(len(bucket) + 1))
    )


def _waves(buckets: Sequence[str], stores: bool) -> Iterator[Sequence[str]]:
    """Yield all buckets at once; with references to stores one bucket, then twice as many from wave to wave."""
    start, size = 0, 1 if stores else len(buckets)
    while start < len(buckets):
        yield buckets[start : start + size]
        start, size = start + size, 2 * size
