"""Excludes the files of runs from the sources: a run may be in the folder that it was made from."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow.fs as pafs

from caslie_ray.dataset._intermediate import FOLDER
from caslie_ray.storage.lease_files import LEASE
from caslie_ray.storage.retries import with_retries
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS

__all__ = ["Skipped", "leave_out_runs", "refuse_runs"]

_WRITTEN = frozenset({*SCHEMAS, FOLDER, "summary", "report", "models", "answers", LEASE})
_STAMPS = (f"{FOLDER}/tables.json", "summary/ingest.json")
# Names of folders alone would match folders of the user's own.
_OF_RUN = re.compile(
    rf"(?:^|(.*)/)(?:{FOLDER}/tables\.json|{FOLDER}/parsed/[0-9a-f]{{32}}/\d{{6,}}(?:-e\d{{8}})?\.parquet|summary/ingest\.json"
    rf"|{LEASE}/epoch-\d{{8}}\.json|holder-[0-9a-f]{{12}}\.json)$"
)


class Skipped(NamedTuple):
    """Files of source folders that were left out.

    Attributes:
        others: files with the extension of another format, such as images.
        run_files: files of runs.
        run_folders: the runs, in order.
    """

    others: int
    run_files: int
    run_folders: tuple[str, ...] = ()


def refuse_runs(filesystem: pafs.FileSystem, source: pafs.FileInfo, run: Run | None) -> str | None:
    """Return why a source may not be read: it is a run, or something that a run has written; None if it may."""
    path = _real(filesystem, source.path)
    mend = "give the folder or file that holds your data, or another --run"
    if run is not None and filesystem.equals(run.fs):
        below = _below(path, _real(run.fs, run.root))
        if below == "":
            return f"is the run itself: {mend}"
        if below is not None and below.split("/")[0] in _WRITTEN:
            return f"lies inside of the run, so its own files would be read as rows: {mend}"
    parent = posixpath.dirname(path)
    folder = source.type == pafs.FileType.Directory
    stamps = [f"{path}/{stamp}" for stamp in _STAMPS] if folder else []
    written = posixpath.basename(path if folder else parent) in _WRITTEN
    if written:
        stamps += [f"{parent if folder else posixpath.dirname(parent)}/{stamp}" for stamp in _STAMPS]
    if stamps and any(_are_files(filesystem, stamps)):
        return f"is a run, or a part of one, and no data set: {mend}"
    return None


def _are_files(filesystem: pafs.FileSystem, paths: Sequence[str]) -> list[bool]:
    infos = with_retries(filesystem, "look up", paths[0], lambda: filesystem.get_file_info(list(paths)))
    return [info.type == pafs.FileType.File for info in infos]


def leave_out_runs(
    filesystem: pafs.FileSystem, folder: str, files: Sequence[pafs.FileInfo], run: Run | None
) -> tuple[list[pafs.FileInfo], tuple[str, ...]]:
    """Return the files of a folder that belong to no run, neither this one nor another, and the runs left out."""
    runs = {
        posixpath.join(folder, found[1] or "").rstrip("/")
        for info in files
        if (found := _OF_RUN.match(posixpath.relpath(info.path, folder)))
    }
    own = _real(run.fs, run.root) if run is not None and filesystem.equals(run.fs) else None
    if own is not None and (below := _below(own, _real(filesystem, folder))) is not None:
        runs.add(posixpath.join(folder, below))
    runs.discard(folder.rstrip("/"))  # a source that is a run is refused before; a lease alone makes none
    kept: list[pafs.FileInfo] = []
    found_runs: set[str] = set()
    for info in files:
        above = [one for one in _folders_above(info.path) if one in runs]
        if above:
            found_runs.add(above[0])
        else:
            kept.append(info)
    return kept, tuple(sorted(found_runs))


def _folders_above(path: str) -> list[str]:
    return [path[:at] for at, letter in enumerate(path) if letter == "/"]


def _below(path: str, folder: str) -> str | None:
    """Return the path relative to a folder, ``""`` for the folder itself; None if it lies elsewhere."""
    if path == folder:
        return ""
    inside = folder.rstrip("/") + "/"
    return path[len(inside) :] if path.startswith(inside) else None


def _real(filesystem: pafs.FileSystem, path: str) -> str:
    """Return a path without links, where the store has links."""
    return os.path.realpath(path) if isinstance(filesystem, pafs.LocalFileSystem) else path.rstrip("/")
