"""Source files: which files a source has, by path or URI."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlsplit

import pyarrow.fs as pafs

from caslie_ray.dataset._exclude_runs import Skipped, leave_out_runs, refuse_runs
from caslie_ray.dataset._roots import with_path
from caslie_ray.dataset.summary import plural
from caslie_ray.errors import RunError, SourceError
from caslie_ray.storage.filesystems import open_path
from caslie_ray.storage.redaction import public_uri, without_credentials
from caslie_ray.storage.retries import with_retries
from caslie_ray.storage.run import Run

__all__ = ["SourceFile", "find_sources"]

_DATA = re.compile(r"\.(json|jsonl|ndjson|parquet)(\.gz)?$", re.IGNORECASE)
_NAMES = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: how messages and rejects name it; without credentials.
        path: its absolute path or URI, with the options and credentials of its source.
        version: changes when the file does.
        source: the folder that was given as a source, in the form of `path`; empty where the file itself was.
    """

    name: str
    path: str = field(repr=False)
    version: str
    source: str = field(default="", repr=False)


def find_sources(sources: Sequence[str], run: Run | None = None) -> tuple[list[SourceFile], Skipped]:
    """List the files of sources, each once and in order, and count the files of folders that are left out.

    Args:
        sources: files or folders, by path or URI. Folders are searched recursively for ``.json``,
            ``.jsonl``, ``.ndjson`` and ``.parquet`` files, with or without ``.gz``; hidden ones are left out,
            and so are the files of runs.
        run: the run that the rows go to.

    Raises:
        SourceError: a source is not there, is a run or a part of one, or a folder has no such file.
    """
    found: dict[str, SourceFile] = {}
    skipped = Skipped(0, 0)
    for source in sources:
        shown = public_uri(source)
        if re.match(r"https?://", source, re.IGNORECASE):
            raise SourceError(f"{shown} is a web address: download it and give its path")
        try:
            filesystem, inner = open_path(source)
            info = _look_up(filesystem, inner)
            if info.type == pafs.FileType.NotFound:
                raise SourceError(f"there is no source {shown}: check the path")
            if (reason := refuse_runs(filesystem, info, run)) is not None:
                raise SourceError(f"source {shown} {reason}")
            if info.type == pafs.FileType.Directory:
                files, others = _folder(filesystem, inner, source, run)
                skipped = Skipped(
                    skipped.others + others.others,
                    skipped.run_files + others.run_files,
                    skipped.run_folders + others.run_folders,
                )
            else:
                path = source if "://" in source else inner
                if info.type != pafs.FileType.File:  # reading a pipe or a device may block forever
                    raise SourceError(f"source {shown} is no regular file: copy its data into one")
                files = [SourceFile(shown, path, f"{info.size}|{info.mtime_ns}")]
        except (OSError, RunError) as error:
            raise SourceError(f"cannot open source {shown}: {without_credentials(str(error))}") from None
        for file in files:
            found.setdefault(file.path, replace(file, name=_printable(file.name)))
    return list(found.values()), skipped


def _look_up(filesystem: pafs.FileSystem, path: str) -> pafs.FileInfo:
    return with_retries(filesystem, "look up", path, lambda: filesystem.get_file_info(path))


def _printable(name: str) -> str:
    """Escape bytes of a file name that are not text: tables hold text only."""
    return name.encode("utf-8", "backslashreplace").decode()


def _folder(filesystem: pafs.FileSystem, inner: str, source: str, run: Run | None) -> tuple[list[SourceFile], Skipped]:
    shown = public_uri(source)
    selector = pafs.FileSelector(inner, recursive=True)
    infos = with_retries(filesystem, "list", inner, lambda: filesystem.get_file_info(selector))
    infos = [info for info in infos if info.type == pafs.FileType.File]
    kept, runs = leave_out_runs(filesystem, inner, infos, run)
    files: list[SourceFile] = []
    others = 0
    for info in sorted(kept, key=lambda info: info.path):
        below = posixpath.relpath(info.path, inner)
        if any(part.startswith(".") for part in below.split("/")):
            continue
        if not _DATA.search(below):
            others += 1
            continue
        path = info.path
        if "://" in source:
            path = with_path(source, posixpath.join(urlsplit(source).path or "/", quote(below)))
        name = posixpath.join(shown, below)
        given = source if "://" in source else inner
        files.append(SourceFile(name, path, f"{info.size}|{info.mtime_ns}", given))
    run_files = len(infos) - len(kept)
    if not files:
        besides = f" besides {plural(run_files, 'file')} of the runs {', '.join(runs[:_NAMES])}" if run_files else ""
        raise SourceError(f"folder {shown} has no .json, .jsonl, .ndjson or .parquet file{besides}: name the data")
    return files, Skipped(others, run_files, runs)
