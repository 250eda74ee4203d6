"""Fetching what a bucket lacks: its references are compared with the ledger, its files looked up, and blocks fetched.

Files are looked up in tasks: the driver opens nothing that a row names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.dataset._decoding import ImageError
from caslie_ray.dataset._fetching import read_images
from caslie_ray.dataset._files import Files
from caslie_ray.dataset._headers import RequestHeaders
from caslie_ray.dataset._intermediate import FOLDER, PLAN, fold, read_range
from caslie_ray.dataset._references_ledger import Ledger, is_file, write_fetched
from caslie_ray.dataset._roots import Root
from caslie_ray.profiles import ImageSettings
from caslie_ray.storage.run import Run

__all__ = ["BucketReader", "FetchBlock", "Fetched", "Fetcher", "PendingFetch", "Survey", "SurveyCounts"]


@dataclass(frozen=True, slots=True)
class PendingFetch:
    """A reference to fetch: its locator, and its key in the ledger."""

    locator: str
    key: str


@dataclass(frozen=True, slots=True)
class FetchBlock:
    """References of one bucket that a task fetches together."""

    bucket: str
    items: tuple[PendingFetch, ...]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Counts of a block: its references, and those that gave no image."""

    count: int
    rejected: int


class SurveyCounts(NamedTuple):
    """What the driver learns of a bucket.

    Attributes:
        bucket: the bucket.
        pending: references to fetch.
        gone: positions of the sources whose rows hold images that are no longer in the run.
        silent: stores that did not answer.
        plan: the path of the plan of this attempt.
    """

    bucket: str
    pending: int
    gone: frozenset[int]
    silent: frozenset[str]
    plan: str


@dataclass(slots=True)
class Survey:
    """The references of a bucket, compared with its ledger.

    Attributes:
        ledger: the ledger.
        only_new: whether retryable failures in the ledger are left out of `pending`.
        references: distinct ones.
        files: locators of files that have not been looked up.
        pending: what must be fetched.
        gone: positions of the sources whose rows hold images that are no longer in the run.
    """

    ledger: Ledger
    only_new: bool
    references: int = 0
    files: list[str] = field(default_factory=list)
    pending: list[PendingFetch] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, rows: pa.Table, ledger: Ledger, only_new: bool = False) -> Survey:
        """Compare references with the ledger.

        Args:
            rows: the columns `locator` and `place`, the position of the source; rows may repeat.
            ledger: the ledger of their bucket.
            only_new: whether retryable failures in the ledger are left out.
        """
        distinct = rows.group_by("locator", use_threads=False).aggregate([("place", "distinct")]).sort_by("locator")
        found = cls(ledger, only_new, distinct.num_rows)
        columns = [distinct[name].to_pylist() for name in ("locator", "place_distinct")]
        for locator, places in zip(*columns, strict=True):
            if is_file(locator):
                found.files.append(locator)
            elif not locator.startswith("bad:") and not found.add(locator, locator):
                found.gone.update(places)
        return found

    def add(self, locator: str, key: str) -> bool:
        """Compare a reference whose key is known; return False where its bytes came with a row and are gone."""
        result = self.ledger.result(key)
        if result is not None and (self.only_new or not result.retryable):
            return True
        if locator.startswith("bytes:"):
            return False
        self.pending.append(PendingFetch(locator, key))
        return True


class BucketReader:
    """Reads buckets.

    Args:
        run: where their files are.
        images: settings.
        references: the files that `Shuffler` wrote.
        moved: the files of ledger rows that it wrote.
        roots: what may be opened.
        block: the most references in a block.
        blocks: how many blocks a bucket is divided into, at least.
        silent: stores that did not answer before.
        only_new: whether retryable failures in the ledger are left out.
        attempt: a name that no other attempt to fetch has, of this job or an earlier one.
    """

    def __init__(
        self,
        run: Run,
        images: ImageSettings,
        references: Sequence[str],
        moved: Sequence[str],
        roots: Sequence[Root] = (),
        block: int = 1,
        blocks: int = 1,
        silent: frozenset[str] = frozenset(),
        *,
        only_new: bool = False,
        attempt: str = "",
    ) -> None:
        self._run = run
        self._images = images
        self._references = list(references)
        self._moved = list(moved)
        self._roots = list(roots)
        self._block = block
        self._blocks = blocks
        self._silent = silent
        self._only_new = only_new
        self._attempt = attempt

    def survey(self, bucket: str) -> Survey:
        """Compare the references of a bucket with its ledger; no file is looked up."""
        ledger = Ledger(self._run, self._images, bucket, self._moved)
        return Survey.of(read_range(self._run, self._references, "references", bucket), ledger, self._only_new)

    def __call__(self, bucket: str) -> Iterator[FetchBlock | SurveyCounts]:
        """Yield the blocks of a bucket, and its counts at the end.

        Ray may run this again if a machine is lost, and expects the same blocks: they follow from a file that is
        written once per attempt.
        """
        path = self._run.table_path(f"{FOLDER}/plans", f"{self._attempt}-{bucket}")
        if not self._run.info([path])[0].is_file:
            self._write_plan(bucket)
        note = self._run.note_of(path)
        rows = self._run.read_file(path, ["locator", "key"], pc.field("pending"))
        columns = (rows["locator"].to_pylist(), rows["key"].to_pylist())
        pending = [PendingFetch(locator, key) for locator, key in zip(*columns, strict=True)]
        size = max(1, min(self._block, -(-len(pending) // self._blocks)))
        for start in range(0, len(pending), size):
            yield FetchBlock(bucket, tuple(pending[start : start + size]))
        gone, silent = frozenset(json.loads(note["gone"])), frozenset(json.loads(note["silent"]))
        yield SurveyCounts(bucket, len(pending), gone, silent, path)

    def _write_plan(self, bucket: str) -> None:
        found = self.survey(bucket)
        files = Files(self._roots)
        files.silent.update(self._silent)
        rows: list[dict[str, object]] = []
        for locator, key in sorted(files.keys(found.files).items()):
            if isinstance(key, ImageError):
                rows.append({"locator": locator, "pending": False, "reason": key.reason, "retryable": key.retryable})
                continue
            before = len(found.pending)
            found.add(locator, key)
            if len(found.pending) == before:
                rows.append({"locator": locator, "key": key, "pending": False, "retryable": False})
        rows += ({"locator": one.locator, "key": one.key, "pending": True, "retryable": False} for one in found.pending)
        note = {"gone": json.dumps(sorted(found.gone)), "silent": json.dumps(sorted(files.silent))}
        self._run.write(f"{FOLDER}/plans", f"{self._attempt}-{bucket}", fold(rows, PLAN), PLAN, note)


class Fetcher:
    """Fetches, decodes and stores blocks of references."""

    def __init__(self, run: Run, images: ImageSettings, headers: RequestHeaders, roots: Sequence[Root]) -> None:
        self._run = run
        self._images = images
        self._headers = headers
        self._roots = roots

    def __call__(self, part: FetchBlock | SurveyCounts) -> Fetched | SurveyCounts:
        """Fetch a block and return its counts; a survey is returned as it is."""
        if isinstance(part, SurveyCounts):
            return part
        locators = [item.locator for item in part.items]
        outcomes = read_images(locators, self._images, self._headers, Files(self._roots))
        keys = [item.key for item in part.items]
        write_fetched(self._run, self._images, list(zip(keys, outcomes, strict=True)), part.bucket)
        return Fetched(len(outcomes), sum(outcome.image is None for outcome in outcomes))
