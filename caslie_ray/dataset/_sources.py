"""Source files: which files a source has, by path or URI. A folder that has only pictures counts as one."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, urlsplit

import pyarrow.fs as pafs

from caslie_ray.dataset._exclude_runs import Skipped, leave_out_runs, refuse_runs
from caslie_ray.dataset._pictures import is_picture, listing_version
from caslie_ray.dataset._roots import with_path
from caslie_ray.dataset.summary import plural
from caslie_ray.errors import RunError, SourceError
from caslie_ray.storage.filesystems import open_path
from caslie_ray.storage.redaction import public_uri, without_credentials
from caslie_ray.storage.retries import with_retries
from caslie_ray.storage.run import Run

__all__ = ["SourceFile", "files_below", "find_sources"]

_DATA = re.compile(r"\.((json|jsonl|ndjson|parquet|csv|tsv|xml|tar)(\.gz)?|tgz)$", re.IGNORECASE)
_NAMES = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source, or a folder of pictures.

    Attributes:
        name: how messages and rejects name it; without credentials.
        path: its absolute path or URI, with the options and credentials of its source. That of a folder ends in a
            slash, so that the references of its rows start in it.
        version: changes when the file does.
        source: the folder that was given as a source, in the form of `path`; empty where the file itself was.
        pictures: whether it is a folder of pictures.
    """

    name: str
    path: str = field(repr=False)
    version: str
    source: str = field(default="", repr=False)
    pictures: bool = False


def find_sources(sources: Sequence[str], run: Run | None = None) -> tuple[list[SourceFile], Skipped]:
    """List the files of sources, each once and in order, and count the files of folders that are left out.

    Args:
        sources: files or folders, by path or URI. Folders are searched recursively for ``.json``, ``.jsonl``,
            ``.ndjson``, ``.parquet``, ``.csv``, ``.tsv``, ``.xml`` and ``.tar`` files, with or without ``.gz``, and
            ``.tgz``; hidden ones are left out, and so are the files of runs. A folder without any such file is read as
            its pictures.
        run: the run that the rows go to.

    Raises:
        SourceError: a source is not there, is a run or a part of one, or a folder has no such file or picture,
            or one whose name cannot be read.
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
        except UnicodeDecodeError:
            raise SourceError(f"source {shown} has a file whose name is not UTF-8: rename it") from None
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


def files_below(
    filesystem: pafs.FileSystem, folder: str, run: Run | None = None
) -> tuple[list[tuple[str, pafs.FileInfo]], Skipped]:
    """Return the files of a folder by their paths below it, in order; hidden ones and those of runs are left out.

    Args:
        filesystem: the store.
        folder: the path of the folder in it.
        run: the run that the rows go to.
    """
    selector = pafs.FileSelector(folder, recursive=True)
    infos = with_retries(filesystem, "list", folder, lambda: filesystem.get_file_info(selector))
    infos = [info for info in infos if info.type == pafs.FileType.File]
    kept, runs = leave_out_runs(filesystem, folder, infos, run)
    found = [(posixpath.relpath(info.path, folder), info) for info in sorted(kept, key=lambda info: info.path)]
    shown = [(below, info) for below, info in found if not any(part.startswith(".") for part in below.split("/"))]
    return shown, Skipped(0, len(infos) - len(kept), runs)


def _folder(filesystem: pafs.FileSystem, inner: str, source: str, run: Run | None) -> tuple[list[SourceFile], Skipped]:
    shown = public_uri(source)
    found, skipped = files_below(filesystem, inner, run)
    given = source if "://" in source else inner

    def path_of(below: str) -> str:
        if "://" not in source:
            return posixpath.join(inner, below)
        return with_path(source, posixpath.join(urlsplit(source).path or "/", quote(below)))

    files = [
        SourceFile(posixpath.join(shown, below), path_of(below), f"{info.size}|{info.mtime_ns}", given)
        for below, info in found
        if _DATA.search(below)
    ]
    used = len(files)
    if not files and (used := sum(is_picture(below) for below, _ in found)):
        files = [SourceFile(shown, path_of(""), listing_version(found), given, pictures=True)]
    if not files:
        count, runs = skipped.run_files, skipped.run_folders
        besides = f" besides {plural(count, 'file')} of the runs {', '.join(runs[:_NAMES])}" if count else ""
        kinds = ".json, .jsonl, .ndjson, .parquet, .csv, .tsv, .xml or .tar file, and no picture"
        raise SourceError(f"folder {shown} has no {kinds}{besides}: name the data")
    return files, skipped._replace(others=len(found) - used)
