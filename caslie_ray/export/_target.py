"""Where an export goes: a file or a folder, and the format that its name asks for."""

from __future__ import annotations

import posixpath
from typing import NamedTuple

import pyarrow.fs as pafs

from caslie_ray.errors import JobError
from caslie_ray.export._workspace import FOLDER
from caslie_ray.export.options import ENDINGS, LISTINGS, ExportOptions
from caslie_ray.profiles import ProfileError
from caslie_ray.storage.redaction import public_uri
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import CONTEXT_FREE_FOLDER, SCHEMAS

__all__ = ["Target", "target_of"]

_BY_ENDING = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
# Folders of a run that an export must not write to.
_OF_THE_RUN = {*SCHEMAS, "answers", "damaged", "lease", "models", "summary", CONTEXT_FREE_FOLDER, FOLDER}


class Target(NamedTuple):
    """The file or folder to write.

    Attributes:
        place: the file or folder, as if it were the root of a run.
        format: a key of `ENDINGS`.
        is_file: whether it is one file.
    """

    place: Run
    format: str
    is_file: bool

    @property
    def path(self) -> str:
        """Its path on the store."""
        return self.place.root

    @property
    def part_ending(self) -> str:
        """The ending of files in the folder."""
        return next(iter(ENDINGS[self.format]), ".parquet")


def target_of(options: ExportOptions, run: Run) -> Target:
    """Return where an export goes; nothing is created.

    Raises:
        ProfileError: the format is not known, or does not fit the other options.
        JobError: the target is in the way of something else.
        RunError: the store does not answer, or the URI cannot be opened.
    """
    place = open_run(options.to)
    is_folder_already = place.info([place.root])[0].type == pafs.FileType.Directory
    name = public_uri(options.to)
    ending = "" if is_folder_already or name.endswith("/") else posixpath.splitext(name)[1].lower()
    chosen = options.format or (_BY_ENDING.get(ending) if ending else "parquet")
    if chosen is None:
        raise ProfileError(
            f"--to {name}: the ending {ending} is not known; end the name in {', '.join(_BY_ENDING)}, give --format, or"
            " end it in / for a folder"
        )
    is_file = bool(ending) and chosen != "dataset"
    if is_file and ending not in ENDINGS[chosen]:
        raise ProfileError(
            f"--to {name}: files of the format {chosen} end in {' or '.join(ENDINGS[chosen])}; end the name in / for a"
            " folder"
        )
    if options.every and chosen in LISTINGS:
        raise ProfileError(
            f"--all: the format {chosen} has no column for a verdict, so captions that lost would be published; leave"
            " out --all, or choose another format"
        )
    target = Target(place, chosen, is_file)
    _refuse_if_in_the_way(target, run)
    return target


def _refuse_if_in_the_way(target: Target, run: Run) -> None:
    place = target.place
    if not target.is_file and place.info([place.root])[0].type == pafs.FileType.File:
        raise JobError(f"--to names a file where a folder is to be written: {place.label}; choose another name")
    if not place.fs.equals(run.fs):
        return
    below = posixpath.relpath(posixpath.normpath(place.root), posixpath.normpath(run.root)).split("/")
    if below == ["."] or below[0] in _OF_THE_RUN:
        raise JobError(f"--to is in a folder that belongs to the run: {place.label}; choose a folder of its own")
