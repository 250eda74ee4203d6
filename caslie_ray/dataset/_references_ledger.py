"""The ledger of references: what fetching each one gave, as the run's files have it.

References are divided into buckets by the hash of their locator, so that a task reads the ledger of its bucket alone.
"""

from __future__ import annotations

import posixpath
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.dataset._downloading import NO_VALIDATORS, Validators
from caslie_ray.dataset._fetching import Outcome
from caslie_ray.dataset._headers import header_settings
from caslie_ray.dataset._intermediate import FETCHED, FOLDER, SORTED, fold, read_range, write_sorted
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings
from caslie_ray.storage.run import Run

__all__ = [
    "FetchResult", "Ledger", "bucket_folder", "file_of", "foreign_files", "is_file", "read_fetched", "reference_hash",
    "write_fetched",
]  # fmt: skip

_COMPACTED = "ledger"


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The result of a reference.

    Attributes:
        image_id: of the stored image; None if there is none.
        reason: why there is none; None if there is one.
        retryable: whether a later run may succeed.
        block: the file in ``pending/`` that has the image unless the table has it.
        validators: what the server calls the version by that gave the result.
        version: higher than that of each earlier result of the reference that this one replaces.
    """

    image_id: str | None
    reason: str | None = None
    retryable: bool = False
    block: str | None = None
    validators: Validators = NO_VALIDATORS
    version: int = 0

    def precedes(self, other: FetchResult) -> bool:
        """Whether this result counts and the other one does not.

        Files have no order: of one version an image takes precedence over a reject, a final reject over a retryable
        one.
        """
        if self.version != other.version:
            return self.version > other.version
        return self.image_id is not None or (other.image_id is None and other.retryable)


class _Dependencies:
    """The settings that results depend on: an image on few of them, a reject on more."""

    def __init__(self, images: ImageSettings) -> None:
        headers = header_settings(images)
        self._image = f"{images.max_side}/{images.max_pixels}/{images.max_bytes}"
        guards = f"{images.max_memory}/{images.max_scans}/{images.decode_timeout_s}"
        self._reject = f"{self._image}/{images.allow_private}/{guards}"
        self._url_reject = self._reject + (f"/{headers}" if headers else "")

    def of(self, key: str, fetched: bool) -> str:
        """Return the settings of one result, as text."""
        return self._image if fetched else self._url_reject if key.startswith("url:") else self._reject


def reference_hash(locator: str) -> str:
    """Return the hexadecimal digits that start with the bucket of a reference."""
    return content_id(locator)[:8]


def bucket_folder(bucket: str) -> str:
    """Return the folder of a bucket's ledger; the only bucket has no digits."""
    return f"{FOLDER}/fetched/{bucket}" if bucket else f"{FOLDER}/fetched"


def is_file(locator: str) -> bool:
    """Whether a locator or key is that of a file, on this machine or in a store."""
    return locator.startswith(("file:", "store:"))


def file_of(key: str) -> str:
    """Return the locator of a file's key; the key of a failed look-up is its locator."""
    parts = key.rsplit("|", 2)
    return parts[0] if len(parts) == 3 and parts[2].lstrip("-").isdigit() and parts[1].isdigit() else key


def write_fetched(
    run: Run,
    images: ImageSettings,
    outcomes: Sequence[tuple[str, Outcome]],
    bucket: str = "",
    versions: Mapping[str, int] = {},
) -> None:
    """Write outcomes by key to the ledger of a bucket, their images first; those without a version have 0."""
    if not outcomes:
        return
    # With the versions, so that the images of earlier results, which may be needed still, are not overwritten.
    name = content_id(*(f"{versions.get(key, 0)} {key}" for key, _ in outcomes))
    settings = _Dependencies(images)
    stored: dict[str, dict[str, object]] = {}
    rows: list[dict[str, object]] = []
    for key, outcome in outcomes:
        row: dict[str, object] = {"key": key, "settings": settings.of(key, outcome.image is not None)}
        row |= {"reason": outcome.reason, "retryable": outcome.retryable, "version": versions.get(key, 0)}
        row |= _columns(outcome.validators)
        if outcome.image is not None:
            image = outcome.image
            row["image_id"] = image_id = content_id(image.data)
            size = {"width": image.width, "height": image.height}
            stored[image_id] = {"image_id": image_id, "image": image.data, **size}
        rows.append(row)
    write_sorted(run, "pending", name, "images", fold(stored.values(), SORTED["images"]))
    run.write(bucket_folder(bucket), name, fold(rows, FETCHED), FETCHED)


def read_fetched(run: Run, path: str) -> pa.Table:
    """Return the rows of a ledger file with their `block`; a column that was added since it was written is null."""
    rows = run.read_file(path)
    for field in FETCHED:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    if run.stem(path) != _COMPACTED:
        block = pa.array([posixpath.basename(path)] * rows.num_rows, pa.string())
        rows = rows.set_column(rows.column_names.index("block"), "block", block)
    return rows.select(FETCHED.names)


def foreign_files(run: Run, buckets: Sequence[str]) -> list[str]:
    """Return the ledger files that are not in the folder of one of the buckets."""
    infos = run.listed(run.path(bucket_folder("")))
    names = ["", *(info.base_name for info in infos if info.type == pafs.FileType.Directory)]
    return [path for name in names if name not in set(buckets) for path in run.files(bucket_folder(name))]


class Ledger:
    """The ledger of one bucket, in memory.

    A result counts only under the settings that it depends on.

    Args:
        run: where the ledger is.
        images: the settings.
        bucket: the bucket.
        moved: files with ledger rows that are not in the bucket's folder yet, sorted by hash.
        foreign: files with ledger rows of any bucket.
        missing: ids of images that are in no file; results with them do not count.
    """

    def __init__(
        self,
        run: Run,
        images: ImageSettings,
        bucket: str = "",
        moved: Sequence[str] = (),
        foreign: Sequence[str] = (),
        missing: Container[str] = (),
    ) -> None:
        self._run = run
        self._settings = _Dependencies(images)
        self._bucket = bucket
        self._paths = run.files(bucket_folder(bucket))
        self._results: dict[str, FetchResult] = {}
        for path in self._paths:
            self._add(read_fetched(run, path), missing)
        self._add(read_range(run, moved, "ledger", bucket), missing)
        for path in foreign:
            rows = read_fetched(run, path)
            own = [reference_hash(file_of(key)).startswith(bucket) for key in rows["key"].to_pylist()]
            self._add(rows.filter(pa.array(own, pa.bool_())), missing)

    def _add(self, rows: pa.Table, missing: Container[str]) -> None:
        columns = [rows[name].to_pylist() for name in FETCHED.names]
        for key, settings, image_id, reason, retryable, block, etag, modified, version in zip(*columns, strict=True):
            is_image = image_id is not None
            if settings != self._settings.of(key, is_image) or (is_image and image_id in missing):
                continue
            result = FetchResult(image_id, reason, retryable, block, Validators(etag, modified), version or 0)
            before = self._results.get(key)
            if before is None or result.precedes(before):
                self._results[key] = result

    def result(self, key: str) -> FetchResult | None:
        """Return the result of a reference; None if there is none yet."""
        return self._results.get(key)

    def unchanged_files(self) -> set[str]:
        """Return the locators of files that need not be fetched unless they have changed since."""
        return {file_of(key) for key, result in self._results.items() if is_file(key) and not result.retryable}

    def compact(self, results: Mapping[str, FetchResult] | None = None) -> None:
        """Replace the bucket's files by one that holds these results by key; all that are in memory where None."""
        results = self._results if results is None else results
        rows: list[dict[str, object]] = []
        for key, result in sorted(results.items()):
            settings = self._settings.of(key, result.image_id is not None)
            rows.append(
                {"key": key, "settings": settings, "image_id": result.image_id, "reason": result.reason}
                | {"retryable": result.retryable, "block": result.block, "version": result.version}
                | _columns(result.validators)
            )
        table = fold(rows, FETCHED)
        paths = self._paths
        if list(map(self._run.stem, paths)) == [_COMPACTED] and self._run.read_file(paths[0]).equals(table):
            return
        path = self._run.write(bucket_folder(self._bucket), _COMPACTED, table, FETCHED)
        self._run.delete(other for other in paths if other != path)


def _columns(validators: Validators) -> dict[str, object]:
    return {"etag": validators.etag, "last_modified": validators.last_modified}
