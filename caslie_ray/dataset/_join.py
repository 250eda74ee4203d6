"""Join of references and their results: bucket by bucket, results are written for each group of parsed rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.dataset._intermediate import SORTED, read_range, write_sorted
from caslie_ray.dataset._references_ledger import FetchResult, Ledger, is_file
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings
from caslie_ray.storage.run import Run

__all__ = ["Forgetter", "Joined", "Joiner"]

_GONE = FetchResult(None, "lost: the image was read and is gone; run ingest again", retryable=True)
_NOT_LOOKED_UP = FetchResult(
    None, "worker lost: looking at this image's file ended its process; run ingest again", retryable=True
)
_NOT_FETCHED = FetchResult(
    None, "worker lost: reading this image ended its process; shrink it, or give workers more memory", retryable=True
)


class Joined(NamedTuple):
    """The results of a bucket.

    Attributes:
        bucket: the bucket.
        path: its results by group; None if it has no references.
        digest: a hash of them.
    """

    bucket: str
    path: str | None
    digest: str


class _Key(NamedTuple):
    """The ledger key of a reference, or why its file cannot be read."""

    key: str | None = None
    reason: str | None = None
    retryable: bool = False


class Joiner:
    """Joins buckets, and reduces their ledger to the results that the sources need.

    Args:
        run: where the files are.
        images: settings.
        references: the files that `Shuffler` wrote.
        moved: the files of ledger rows that it wrote.
        plans: the files with the keys of file references, by bucket.
    """

    def __init__(
        self,
        run: Run,
        images: ImageSettings,
        references: Sequence[str],
        moved: Sequence[str],
        plans: Mapping[str, str],
    ) -> None:
        self._run = run
        self._images = images
        self._references = list(references)
        self._moved = list(moved)
        self._plans = dict(plans)

    def __call__(self, bucket: str) -> Joined:
        """Write the results of a bucket by group."""
        ledger = Ledger(self._run, self._images, bucket, self._moved)
        rows = read_range(self._run, self._references, "references", bucket)
        locators = pc.unique(rows["locator"]).sort()
        results = self._results(bucket, locators.to_pylist(), ledger)
        names = ("image_id", "reason", "retryable", "block")
        columns = {
            name: pa.array([getattr(result, name) for result in results], SORTED["results"].field(name).type)
            for name in names
        }
        at = pc.index_in(rows["locator"], value_set=locators)
        table = pa.table({"group": rows["group"], "locator": rows["locator"]})
        for name, column in columns.items():
            table = table.append_column(name, pa.chunked_array([column]).take(at))
        path = write_sorted(self._run, "results", f"results-{bucket}", "results", table)
        hashed = (locators, columns["image_id"], columns["reason"], columns["retryable"])
        return Joined(bucket, path, content_id(*(json.dumps(column.to_pylist()).encode() for column in hashed)))

    def _results(self, bucket: str, locators: Sequence[str], ledger: Ledger) -> list[FetchResult]:
        """Return the result of each reference, and keep those in the ledger that later runs can use."""
        keys: dict[str, _Key] = {}
        if bucket in self._plans:
            names = ["locator", "key", "reason", "retryable"]
            found = self._run.read_file(self._plans[bucket], names)
            columns = [found[name].to_pylist() for name in names]
            keys = {locator: _Key(*key) for locator, *key in zip(*columns, strict=True)}
        results: list[FetchResult] = []
        kept: dict[str, FetchResult] = {}
        for locator in locators:
            if locator.startswith("bad:"):
                results.append(FetchResult(None, locator.removeprefix("bad:")))
                continue
            key, reason, retryable = (
                keys.get(locator, (None, None, None)) if is_file(locator) else (locator, None, None)
            )
            if reason is not None:
                kept[locator] = FetchResult(None, reason, bool(retryable))
                results.append(kept[locator])
            elif key is None:
                results.append(_NOT_LOOKED_UP)
            elif (result := ledger.result(key)) is not None:
                kept[key] = result
                results.append(result)
            else:
                results.append(_GONE if locator.startswith("bytes:") else _NOT_FETCHED)
        ledger.compact(kept)
        return results


class Forgetter:
    """Removes results from the ledger of buckets whose images are in no file.

    Args:
        run: where the ledger is.
        images: settings.
        missing: files with the ids of these images.
    """

    def __init__(self, run: Run, images: ImageSettings, missing: Sequence[str]) -> None:
        self._run = run
        self._images = images
        self._missing = list(missing)

    def __call__(self, bucket: str) -> None:
        """Rewrite the ledger of a bucket."""
        ids = {one for path in self._missing for one in self._run.read_file(path)["image_id"].to_pylist()}
        Ledger(self._run, self._images, bucket, missing=ids).compact()
