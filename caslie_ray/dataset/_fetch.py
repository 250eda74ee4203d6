"""Second step of `ingest`: each distinct reference is fetched once, and what became of it is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from caslie_ray.dataset.decoding import ImageError
from caslie_ray.dataset.files import Files
from caslie_ray.dataset.headers import RequestHeaders, header_settings
from caslie_ray.dataset.images import Outcome, read_images
from caslie_ray.dataset.roots import Root
from caslie_ray.dataset.working import FETCHED, FOLDER, SORTED, fold, write_sorted
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings
from caslie_ray.storage.run import Run

__all__ = ["Fate", "Fetcher", "Ledger", "Plan", "Wanted", "fate_table", "plan", "write_fetched"]

_TABLE = f"{FOLDER}/fetched"
_KEPT = "ledger"

FATES = pa.schema(
    [("locator", pa.string()), ("image_id", pa.string()), ("reason", pa.string()), ("retryable", pa.bool_())]
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A reference to be fetched: where it is, and the key by which the ledger will know it."""

    locator: str
    key: str


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a reference."""

    image_id: str | None
    reason: str | None = None
    retryable: bool = False


class _Dependencies:
    """The settings that outcomes depend on: an image on few of them, a reject on more."""

    def __init__(self, images: ImageSettings) -> None:
        headers = header_settings(images)
        self._image = f"{images.max_side}/{images.max_pixels}/{images.max_bytes}"
        guards = f"{images.max_memory}/{images.max_scans}/{images.decode_timeout_s}"
        self._reject = f"{self._image}/{images.allow_private}/{guards}"
        self._url_reject = self._reject + (f"/{headers}" if headers else "")

    def of(self, key: str, fetched: bool) -> str:
        """Return the settings of one outcome, as text."""
        return self._image if fetched else self._url_reject if key.startswith("url:") else self._reject


def write_fetched(run: Run, images: ImageSettings, outcomes: Sequence[tuple[str, Outcome]]) -> None:
    """Keep outcomes, by key: the images first, then the ledger's rows."""
    if not outcomes:
        return
    name = content_id(*(key for key, _ in outcomes))
    settings = _Dependencies(images)
    pictures: dict[str, dict[str, object]] = {}
    rows: list[dict[str, object]] = []
    for key, outcome in outcomes:
        row: dict[str, object] = {"key": key, "settings": settings.of(key, outcome.image is not None)}
        row |= {"reason": outcome.reason, "retryable": outcome.retryable}
        if outcome.image is not None:
            image = outcome.image
            row["image_id"] = image_id = content_id(image.data)
            size = {"width": image.width, "height": image.height}
            pictures[image_id] = {"image_id": image_id, "image": image.data, **size}
        rows.append(row)
    write_sorted(run, "pending", name, "images", fold(pictures.values(), SORTED["images"]))
    run.write(_TABLE, name, fold(rows, FETCHED), FETCHED)


class Fetcher:
    """Fetches, decodes and keeps a block of references."""

    def __init__(self, run: Run, images: ImageSettings, headers: RequestHeaders, roots: Sequence[Root]) -> None:
        self._run = run
        self._images = images
        self._headers = headers
        self._roots = roots

    def __call__(self, block: Sequence[Wanted]) -> tuple[int, int]:
        """Fetch the block and return its size and how many of it gave no image."""
        locators = [wanted.locator for wanted in block]
        outcomes = read_images(locators, self._images, self._headers, Files(self._roots))
        keys = [wanted.key for wanted in block]
        write_fetched(self._run, self._images, list(zip(keys, outcomes, strict=True)))
        return len(block), sum(outcome.image is None for outcome in outcomes)


class Ledger:
    """What is known of references: read from the files, never from memory of an earlier run.

    An image counts as fetched only while its bytes are in the run.
    """

    def __init__(self, run: Run, images: ImageSettings) -> None:
        self._run = run
        self._settings = _Dependencies(images)
        self._fates: dict[str, Fate] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the files again."""
        held: set[str] = set(self._run.read("images", ["image_id"])["image_id"].to_pylist())
        for path in self._run.files(f"{FOLDER}/pending"):
            held |= set(self._run.read_file(path, ["image_id"])["image_id"].to_pylist())
        self._fates = {}
        for path in self._run.files(_TABLE):
            for row in self._run.read_file(path).to_pylist():
                fate = Fate(row["image_id"], row["reason"], row["retryable"])
                is_image = fate.image_id is not None
                if row["settings"] != self._settings.of(row["key"], is_image) or (
                    is_image and fate.image_id not in held
                ):
                    continue
                before = self._fates.get(row["key"])
                # Files have no order: an image outweighs a reject, a final reject one that may pass.
                if before is None or is_image or (before.image_id is None and before.retryable):
                    self._fates[row["key"]] = fate

    def fate(self, key: str) -> Fate | None:
        """Return what became of a reference, None where nobody knows."""
        return self._fates.get(key)

    def files_without_change(self) -> set[str]:
        """Return the locators of files that need not be fetched, unless they have changed since."""
        return {file_of(key) for key, fate in self._fates.items() if is_file(key) and not fate.retryable}

    def keep_only(self, keys: Iterable[str]) -> None:
        """Write the ledger anew, as one file, with these keys."""
        kept = sorted(key for key in set(keys) if key in self._fates)
        paths = self._run.files(_TABLE)
        rows: list[dict[str, object]] = []
        for key in kept:
            fate = self._fates[key]
            settings = self._settings.of(key, fate.image_id is not None)
            rows.append(
                {"key": key, "settings": settings, "image_id": fate.image_id, "reason": fate.reason}
                | {"retryable": fate.retryable}
            )
        table = fold(rows, FETCHED)
        if list(map(self._run.stem, paths)) == [_KEPT] and self._run.read_file(paths[0]).equals(table):
            return
        path = self._run.write(_TABLE, _KEPT, table, FETCHED)
        self._run.delete(other for other in paths if other != path)


@dataclass(slots=True)
class Plan:
    """Distinct references, sorted by what is to be done about them.

    Attributes:
        fates: what is known already, by locator.
        files: locators of files whose keys are not known yet.
        wanted: what is to be fetched; failures that may pass are among it.
        gone: locators of bytes that came with a row and are not in the run.
        keys: the ledger's keys of all but `files`.
    """

    fates: dict[str, Fate] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def place(self, locator: str, key: str, ledger: Ledger) -> None:
        """Sort in a reference whose key is known."""
        self.keys.add(key)
        fate = ledger.fate(key)
        if fate is not None and not fate.retryable:
            self.fates[locator] = fate
        elif locator.startswith("bytes:"):
            self.gone.append(locator)
        else:
            self.wanted.append(Wanted(locator, key))

    def place_files(self, found: Iterable[tuple[str, str | ImageError]], ledger: Ledger) -> list[tuple[str, Outcome]]:
        """Sort in the files, with what a look at each has found.

        Returns:
            The failures that the ledger does not have; their key is the locator.
        """
        failures: list[tuple[str, Outcome]] = []
        for locator, key in found:
            if not isinstance(key, ImageError):
                self.place(locator, key, ledger)
                continue
            self.keys.add(locator)
            fate = self.fates[locator] = Fate(None, key.reason, key.retryable)
            if ledger.fate(locator) != fate:
                failures.append((locator, Outcome(None, key.reason, key.retryable)))
        self.files = []
        return failures


def plan(locators: Iterable[str], ledger: Ledger) -> Plan:
    """Sort references by what the ledger has of them; no file is looked at."""
    made = Plan()
    for locator in sorted(locators):
        if locator.startswith("bad:"):
            made.fates[locator] = Fate(None, locator.removeprefix("bad:"))
        elif is_file(locator):
            made.files.append(locator)
        else:
            made.place(locator, locator, ledger)
    return made


def is_file(locator: str) -> bool:
    """Whether a locator or key is that of a file, on this machine or in a store."""
    return locator.startswith(("file:", "store:"))


def file_of(key: str) -> str:
    """Return the locator of a file's key; a failed look-up has the locator as its key."""
    parts = key.rsplit("|", 2)
    return parts[0] if len(parts) == 3 and parts[2].lstrip("-").isdigit() and parts[1].isdigit() else key


def fate_table(fates: dict[str, Fate]) -> pa.Table:
    """Return fates as a table, for the workers."""
    names = sorted(fates)
    columns = [
        names,
        [fates[name].image_id for name in names],
        [fates[name].reason for name in names],
        [fates[name].retryable for name in names],
    ]
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, FATES, strict=True)], FATES)
