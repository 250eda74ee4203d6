"""Parsed source files that a run has, and damaged files of ingest."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from caslie_ray.dataset._catalogue import CatalogueSettings
from caslie_ray.dataset._intermediate import FOLDER, TEMPORARY
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._parse import parse_key
from caslie_ray.dataset._sources import SourceFile
from caslie_ray.dataset._table_writer import TABLES
from caslie_ray.errors import RunError, StoreError
from caslie_ray.profiles import Profile
from caslie_ray.storage.damaged_files import keep_copy
from caslie_ray.storage.run import Run
from caslie_ray.tasks import Task

__all__ = ["Cache", "Parsed"]

log = logging.getLogger(__name__)

_READERS = 16
_REFERENCES = 4  # per row, where they were not counted
_DIRECTORY = pafs.FileType.Directory


class Parsed(NamedTuple):
    """The parsed rows of a source file: counts, and the paths of the chunks in order."""

    rows: int
    references: int
    chunks: tuple[str, ...]


class Cache:
    """The parsed source files of a run; only `mark_parsed` writes, `clean` and `discard_damaged` delete files."""

    def __init__(self, run: Run, profile: Profile, tasks: Mapping[str, Task]) -> None:
        self._run = run
        self._profile = profile
        self._tasks = tasks
        self._catalogue = CatalogueSettings.of(profile)

    def folder(self, file: SourceFile) -> str:
        """Return the folder of a source file's parsed rows, below ``RUN/ingest``."""
        key = parse_key(file, self._profile.ingest, self._profile.images, self._tasks, self._catalogue)
        return f"parsed/{key}"

    @property
    def limits(self) -> dict[str, int]:
        """The limits of the profile by name; files over one of them are marked with these."""
        return asdict(Limits.of(self._profile.ingest))

    def chunks(self, folder: str) -> list[str]:
        """Return the paths of a source file's parsed rows, in order."""
        return sorted(self._run.files(f"{FOLDER}/{folder}"))

    def parsed(self, folder: str, *, by_this_job: bool = False) -> Parsed | None:
        """Return the parsed rows of a source file; None unless all rows are parsed.

        A later job reads a file again that was over a limit, once the limits differ, or whose reader died.
        """
        done = self._run.read_json(f"{FOLDER}/{folder}/done.json")
        chunks = tuple(self.chunks(folder))
        if not isinstance(done, dict) or done.get("chunks") != len(chunks):
            return None
        if not by_this_job and done.get("limits", self.limits) != self.limits:
            return None
        return Parsed(int(done["rows"]), int(done.get("references", _REFERENCES * done["rows"])), chunks)

    def mark_parsed(self, folder: str, *, chunks: int, rows: int, references: int, **limits: Any) -> None:
        """Mark a source file as parsed; `limits` are those that it was over, if any."""
        done = {"chunks": chunks, "rows": rows, "references": references}
        self._run.write_json(f"{FOLDER}/{folder}/done.json", done | limits)

    def table_files(self) -> dict[str, dict[str, int]]:
        """Return the files of each table, oldest first, with their sizes in bytes."""
        found: dict[str, dict[str, int]] = {}
        for name in TABLES:
            sizes = {info.path: info.size for info in self._run.listed(self._run.path(name))}
            found[name] = {path: sizes[path] for path in self._run.files(name) if path in sizes}
        return found

    def discard_damaged(self, path: str) -> set[str]:
        """Delete a damaged file, and the other files of ingest whose footers show damage; return their paths.

        Each is copied to the run's folder `damaged`, unless it is empty. The next ingest replaces their content.
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
        for name in ("parsed", "fetched"):
            folders += [info.path for info in self._run.listed(self._run.path(FOLDER, name)) if info.type == _DIRECTORY]
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
        """Delete temporary files, whose content the tables now have, and parsed rows of other sources."""
        for folder in {info.base_name for info in self._run.listed(self._run.path(FOLDER))} & set(TEMPORARY):
            self._run.delete_folder(self._run.path(FOLDER, folder))
        needed = {self._run.path(FOLDER, folder) for folder in folders}
        for info in self._run.listed(self._run.path(FOLDER, "parsed")):
            if info.type == _DIRECTORY and info.path not in needed:
                self._run.delete_folder(info.path)
