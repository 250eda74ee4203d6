"""Fetching what a bucket lacks: its references are compared with the ledger, its files looked up, and blocks fetched.

Files are looked up in tasks: the driver opens nothing that a row names.

A revisit is another request for a URL whose result is in the ledger. The new result replaces that one, unless the
request failed for a reason that may pass.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.dataset._decoding import ImageError
from caslie_ray.dataset._downloading import Validators
from caslie_ray.dataset._fetching import Outcome, read_images
from caslie_ray.dataset._files import Files
from caslie_ray.dataset._headers import RequestHeaders
from caslie_ray.dataset._intermediate import FOLDER, PLAN, fold, read_range
from caslie_ray.dataset._references_ledger import FetchResult, Ledger, is_file, write_fetched
from caslie_ray.dataset._roots import Root
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings
from caslie_ray.storage.run import Run

__all__ = ["BucketReader", "FetchBlock", "Fetched", "Fetcher", "PendingFetch", "Revisits", "Survey", "SurveyCounts"]


@dataclass(frozen=True, slots=True)
class PendingFetch:
    """A reference to fetch.

    Attributes:
        locator: what is fetched.
        key: its key in the ledger.
        version: of the result to come.
        known: the result that the ledger has, where this is a revisit.
    """

    locator: str
    key: str
    version: int = 0
    known: FetchResult | None = None


@dataclass(frozen=True, slots=True)
class FetchBlock:
    """References of one bucket that a task fetches together."""

    bucket: str
    items: tuple[PendingFetch, ...]


@dataclass(slots=True)
class Revisits:
    """Counts of revisits.

    Attributes:
        asked: URLs that were asked for again.
        not_modified: those of them whose server answered that nothing has changed.
        changed: those that gave another image, another reason, or one instead of the other.
        failed: those that failed for a reason that may pass, so that their earlier result is kept.
    """

    asked: int = 0
    not_modified: int = 0
    changed: int = 0
    failed: int = 0

    def count(self, known: FetchResult, outcome: Outcome) -> bool:
        """Count the outcome of a revisit; return whether the ledger takes it."""
        self.asked += 1
        if outcome.not_modified:
            self.not_modified += 1
            return False
        if outcome.image is None and outcome.retryable and not outcome.gone:
            self.failed += 1
            return False
        image_id = None if outcome.image is None else content_id(outcome.image.data)
        changed = (image_id, outcome.reason) != (known.image_id, known.reason)
        self.changed += changed
        return changed or outcome.validators != known.validators

    def add(self, other: Revisits) -> None:
        """Add the counts of other URLs."""
        self.asked += other.asked
        self.not_modified += other.not_modified
        self.changed += other.changed
        self.failed += other.failed


@dataclass(frozen=True, slots=True)
class Fetched:
    """Counts of a block: its references, those that gave a reject, and its revisits."""

    count: int
    rejected: int
    revisits: Revisits = field(default_factory=Revisits)


class SurveyCounts(NamedTuple):
    """What the driver learns of a bucket.

    Attributes:
        bucket: the bucket.
        pending: references to fetch.
        gone: positions of the sources whose rows hold images that are no longer in the run.
        silent: stores that did not answer.
        plan: the path of the plan of this attempt.
        revisits: those of the references to fetch that the ledger has a result of.
    """

    bucket: str
    pending: int
    gone: frozenset[int]
    silent: frozenset[str]
    plan: str
    revisits: int = 0


@dataclass(slots=True)
class Survey:
    """The references of a bucket, compared with its ledger.

    Attributes:
        ledger: the ledger.
        only_new: whether retryable failures in the ledger are left out of `pending`.
        revisit: whether URLs with a final result in the ledger are in `pending` too.
        references: distinct ones.
        files: locators of files that have not been looked up.
        pending: what must be fetched.
        gone: positions of the sources whose rows hold images that are no longer in the run.
    """

    ledger: Ledger
    only_new: bool
    revisit: bool = False
    references: int = 0
    files: list[str] = field(default_factory=list)
    pending: list[PendingFetch] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, rows: pa.Table, ledger: Ledger, only_new: bool = False, revisit: bool = False) -> Survey:
        """Compare references with the ledger.

        Args:
            rows: the columns `locator` and `place`, the position of the source; rows may repeat.
            ledger: the ledger of their bucket.
            only_new: whether retryable failures in the ledger are left out.
            revisit: whether URLs with a final result in the ledger are fetched too.
        """
        distinct = rows.group_by("locator", use_threads=False).aggregate([("place", "distinct")]).sort_by("locator")
        found = cls(ledger, only_new, revisit, distinct.num_rows)
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
        if result is not None and self.revisit and locator.startswith("url:") and not result.retryable:
            self.pending.append(PendingFetch(locator, key, result.version + 1, result))
            return True
        if result is not None and (self.only_new or not result.retryable):
            return True
        if locator.startswith("bytes:"):
            return False
        self.pending.append(PendingFetch(locator, key, 0 if result is None else result.version))
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
        revisit: the buckets whose URLs are fetched even if the ledger has their result.
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
        revisit: Container[str] = (),
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
        self._revisit = revisit
        self._attempt = attempt

    def survey(self, bucket: str) -> Survey:
        """Compare the references of a bucket with its ledger; no file is looked up."""
        ledger = Ledger(self._run, self._images, bucket, self._moved)
        rows = read_range(self._run, self._references, "references", bucket)
        return Survey.of(rows, ledger, self._only_new, bucket in self._revisit)

    def __call__(self, bucket: str) -> Iterator[FetchBlock | SurveyCounts]:
        """Yield the blocks of a bucket, and its counts at the end.

        Ray may run this again if a machine is lost, and expects the same blocks: they follow from a file that is
        written once per attempt.
        """
        path = self._run.table_path(f"{FOLDER}/plans", f"{self._attempt}-{bucket}")
        if not self._run.info([path])[0].is_file:
            self._write_plan(bucket)
        note = self._run.note_of(path)
        names = ["locator", "key", "version", "known"]
        rows = self._run.read_file(path, names, pc.field("pending"))
        columns = [rows[name].to_pylist() for name in names]
        pending = [
            PendingFetch(locator, key, version, _result(known, version))
            for locator, key, version, known in zip(*columns, strict=True)
        ]
        size = max(1, min(self._block, -(-len(pending) // self._blocks)))
        for start in range(0, len(pending), size):
            yield FetchBlock(bucket, tuple(pending[start : start + size]))
        gone, silent = frozenset(json.loads(note["gone"])), frozenset(json.loads(note["silent"]))
        revisits = sum(one.known is not None for one in pending)
        yield SurveyCounts(bucket, len(pending), gone, silent, path, revisits)

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
        rows += (
            {"locator": one.locator, "key": one.key, "pending": True, "retryable": False, "version": one.version}
            | {"known": _cells(one.known)}
            for one in found.pending
        )
        note = {"gone": json.dumps(sorted(found.gone)), "silent": json.dumps(sorted(files.silent))}
        self._run.write(f"{FOLDER}/plans", f"{self._attempt}-{bucket}", fold(rows, PLAN), PLAN, note)


def _cells(known: FetchResult | None) -> dict[str, str | None] | None:
    """Return a known result as the plan has it."""
    if known is None:
        return None
    validators = {"etag": known.validators.etag, "last_modified": known.validators.last_modified}
    return {"image_id": known.image_id, "reason": known.reason, **validators}


def _result(cells: dict[str, str | None] | None, version: int) -> FetchResult | None:
    """Return the known result that is in a plan; `version` is that of the result to come."""
    if cells is None:
        return None
    validators = Validators(cells["etag"], cells["last_modified"])
    return FetchResult(cells["image_id"], cells["reason"], validators=validators, version=version - 1)


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
        known: dict[str, Validators] = {}
        if self._images.revisit == "changed":
            known = {item.locator: item.known.validators for item in part.items if item.known is not None}
        outcomes = read_images(locators, self._images, self._headers, Files(self._roots), known)
        revisits = Revisits()
        results: list[tuple[str, Outcome]] = []
        for item, outcome in zip(part.items, outcomes, strict=True):
            if item.known is None or revisits.count(item.known, outcome):
                results.append((item.key, outcome))
        versions = {item.key: item.version for item in part.items}
        write_fetched(self._run, self._images, results, part.bucket, versions)
        return Fetched(len(outcomes), sum(outcome.image is None for _, outcome in results), revisits)
