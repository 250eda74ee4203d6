"""What a run already holds of its sources."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pyarrow.compute as pc
import pyarrow.fs as pafs

from caslie_ray.dataset._fetch import Ledger, plan
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._parse import parse_key
from caslie_ray.dataset._tables import TABLES
from caslie_ray.dataset.reading import SourceFile
from caslie_ray.dataset.working import FOLDER
from caslie_ray.errors import RunError, StoreError
from caslie_ray.profiles import Profile
from caslie_ray.storage.damaged_files import keep_copy
from caslie_ray.storage.run import Run
from caslie_ray.tasks import Task

__all__ = ["Held"]

log = logging.getLogger(__name__)

_READERS = 16
_DIRECTORY = pafs.FileType.Directory


class Held:
    """Reads the state of a run; only `clean` and `discard_damaged` change it, by deleting files."""

    def __init__(self, run: Run, profile: Profile, tasks: Mapping[str, Task]) -> None:
        self._run = run
        self._profile = profile
        self._tasks = tasks

    def folder(self, file: SourceFile) -> str:
        """Return where the parsed rows of a source file are kept."""
        key = parse_key(file, self._profile.ingest, self._profile.images, self._tasks)
        return f"parsed/{key}"

    @property
    def limits(self) -> dict[str, int]:
        """The limits of the profile by name, as a file that is over one of them is marked with."""
        return asdict(Limits.of(self._profile.ingest))

    def chunks(self, folder: str) -> list[str]:
        """Return the paths of a source file's parsed rows, in order."""
        return sorted(self._run.files(f"{FOLDER}/{folder}"))

    def rows(self, folder: str, ledger: Ledger) -> int | None:
        """Return how many rows of a source file are parsed; None unless all are, with the images inside.

        A file that was over a limit is read again once the limits differ.
        """
        done = self._run.read_json(f"{FOLDER}/{folder}/done.json")
        if not isinstance(done, dict) or done.get("chunks") != len(self.chunks(folder)):
            return None
        if done.get("limits", self.limits) != self.limits:
            return None
        inside = {one for one in self.locators(folder) if one.startswith("bytes:")}
        return None if plan(inside, ledger).gone else int(done["rows"])

    def locators(self, folder: str) -> set[str]:
        """Return the distinct references of a source file's parsed rows."""
        found: set[str] = set()
        for path in self.chunks(folder):
            column = self._run.read_file(path, ["locators"])["locators"]
            found.update(pc.unique(pc.list_flatten(column)).to_pylist())
        return found

    def table_files(self) -> dict[str, int]:
        """Return the files of the tables, with their sizes in bytes."""
        paths = sorted(path for name in TABLES for path in self._run.files(name))
        return {info.path[len(self._run.root) :]: info.size for info in self._run.info(paths)}

    def discard_damaged(self, path: str) -> set[str]:
        """Delete a damaged file, and the other files of ingest whose footers show damage; return their paths.

        A copy of each is kept in the run's folder `damaged`, unless it is empty. The next ingest replaces what was in
        them.
        """
        damaged = {path, *self._damaged()}
        for one in sorted(damaged):
            if keep_copy(self._run, one) is None:
                state = "empty" if self._run.info([one])[0].is_file else "missing"
                log.warning("%s is %s; its content is read or fetched again", one, state)
        self._run.delete(damaged)
        return damaged

    def _damaged(self) -> list[str]:
        """Return the paths of the files of ingest that cannot be read, as far as their footers show."""
        folders = [info.path for info in self._run.listed(self._run.path(FOLDER)) if info.type == _DIRECTORY]
        folders += [info.path for info in self._run.listed(self._run.path(FOLDER, "parsed")) if info.type == _DIRECTORY]
        folders += [self._run.path(FOLDER), *map(self._run.path, TABLES)]
        with ThreadPoolExecutor(_READERS) as pool:
            infos = [info for found in pool.map(self._run.listed, folders) for info in found]
            damaged = pool.map(self._is_damaged, infos)
            return [info.path for info, found in zip(infos, damaged, strict=True) if found]

    def _is_damaged(self, info: pafs.FileInfo) -> bool:
        """Whether a Parquet or JSON file cannot be read.

        Raises:
            StoreError: the store fails, or memory is short.
        """
        if not info.is_file or not info.base_name.endswith((".parquet", ".json")):
            return False
        if info.size == 0:
            return True
        try:
            if info.base_name.endswith(".parquet"):
                self._run.count_rows(info.path)
            else:
                json.loads(self._run.read_bytes(info.path))
        except StoreError:
            raise
        except (RunError, ValueError):
            return True
        return False

    def clean(self, folders: Sequence[str]) -> None:
        """Delete what the tables now hold, and what no source needs any more."""
        for folder in ("pending", "sorted"):
            self._run.delete(self._run.files(f"{FOLDER}/{folder}"))
        needed = {self._run.path(FOLDER, folder) for folder in folders}
        for info in self._run.listed(self._run.path(FOLDER, "parsed")):
            if info.type == _DIRECTORY and info.path not in needed:
                self._run.delete_folder(info.path)
