"""Fetching what a bucket lacks: its references are compared with the ledger, its files looked up, and blocks fetched.

Files are looked up in tasks: the driver opens nothing that a row names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from caslie_ray.dataset._decoding import ImageError
from caslie_ray.dataset._fetching import read_images
from caslie_ray.dataset._files import Files
from caslie_ray.dataset._headers import RequestHeaders
from caslie_ray.dataset._intermediate import FOLDER, KEYS, fold, read_range
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
        keys: the path of the keys of its file references; None where it has none.
    """

    bucket: str
    pending: int
    gone: frozenset[int]
    silent: frozenset[str] = frozenset()
    keys: str | None = None


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

    def survey(self, bucket: str) -> Survey:
        """Compare the references of a bucket with its ledger; no file is looked up."""
        ledger = Ledger(self._run, self._images, bucket, self._moved)
        return Survey.of(read_range(self._run, self._references, "references", bucket), ledger, self._only_new)

    def __call__(self, bucket: str) -> Iterator[FetchBlock | SurveyCounts]:
        """Yield the blocks of a bucket, and its counts at the end."""
        found = self.survey(bucket)
        files = Files(self._roots)
        files.silent.update(self._silent)
        keys = None
        if found.files:
            rows: list[dict[str, object]] = []
            for locator, key in sorted(files.keys(found.files).items()):
                if isinstance(key, ImageError):
                    rows.append({"locator": locator, "reason": key.reason, "retryable": key.retryable})
                else:
                    rows.append({"locator": locator, "key": key, "retryable": False})
                    found.add(locator, key)
            keys = self._run.write(f"{FOLDER}/keys", f"keys-{bucket}", fold(rows, KEYS), KEYS)
        size = max(1, min(self._block, -(-len(found.pending) // self._blocks)))
        for start in range(0, len(found.pending), size):
            yield FetchBlock(bucket, tuple(found.pending[start : start + size]))
        yield SurveyCounts(bucket, len(found.pending), frozenset(found.gone), frozenset(files.silent), keys)


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
