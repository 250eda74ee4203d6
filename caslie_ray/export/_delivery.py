"""From the parts to the target: one file made of all of them, or a folder with one file for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import pyarrow.fs as pafs

from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.errors import JobError
from caslie_ray.export._formats import FORMATS
from caslie_ray.export._target import Target
from caslie_ray.storage.filesystems import innermost, local_path
from caslie_ray.storage.range_reader import open_ranges
from caslie_ray.storage.run import Run
from caslie_ray.storage.streamed_writes import replace_file

__all__ = ["STAMP", "StoredPart", "deliver_file", "deliver_folder"]

STAMP = ".caslie-export.json"
"""The file in a folder that lists the files that exports wrote there."""

# A stamp is a file that anyone may write: names of other files in it are ignored.
_OURS = re.compile(r"(data/)?part-\d{5,}\.(csv|jsonl|parquet|tsv)")
# What S3 copies at most, and so renames.
_LARGEST_ON_S3 = 5 << 30


class StoredPart(NamedTuple):
    """A part with rows: its path on the run's store, and its size."""

    path: str
    size: int


def deliver_file(run: Run, target: Target, parts: Sequence[StoredPart], tick: Callable[[int], None]) -> None:
    """Write all parts to the target's file; without any, its header.

    Args:
        run: has the parts.
        target: the file.
        parts: in order.
        tick: called with the number of parts that are being written or were.

    Raises:
        JobError: the file would be larger than its store can rename.
        RunError: a store is full or refuses.
    """
    size = sum(part.size for part in parts)
    if innermost(target.place.fs, "")[0].type_name == "s3" and size > _LARGEST_ON_S3:
        raise JobError(
            f"the export is too large for one file on S3: {target.place.label} would have {size / 2**30:.1f} GiB of at"
            " most 5; end the name in / for a folder of parts. Nothing is computed again"
        )
    _write(run, target, target.path, parts, tick)


def deliver_folder(
    run: Run, target: Target, parts: Sequence[StoredPart], tick: Callable[[int], None], *, distributed: bool
) -> None:
    """Write each part to a file of the target's folder; without any, a file without rows.

    Files of an earlier export that are replaced by none are deleted.

    Args:
        run: has the parts.
        target: the folder.
        parts: in order.
        tick: called with the number of parts that were written.
        distributed: whether to write as Ray tasks; a folder of this machine is written by this process.
    """
    inside = "data/" if target.format == "dataset" else ""
    sources = [[part] for part in parts] or [[]]
    files = {f"{inside}part-{n:05}{target.part_ending}": some for n, some in enumerate(sources)}
    before = _stamped(target.place)
    _stamp(run, target.place, before | set(files))
    in_tasks = distributed and local_path(target.place.fs, target.path) is None

    def write(item: tuple[str, list[StoredPart]]) -> None:
        _write(run, target, target.place.path(item[0]), item[1])

    for n, _ in enumerate(map_partitions(write, list(files.items()), distributed=in_tasks), 1):
        tick(n)
    target.place.delete(target.place.path(name) for name in sorted(before - set(files)))
    _stamp(run, target.place, set(files))


def _write(
    run: Run, target: Target, path: str, parts: Sequence[StoredPart], tick: Callable[[int], None] | None = None
) -> None:
    def opened() -> Iterator[BinaryIO]:
        for n, part in enumerate(parts, 1):
            with open_ranges(run.fs, part.path, run.retry_policy) as file:
                yield file
            if tick is not None:
                tick(n)

    def fill(stream: BinaryIO) -> None:
        if len(parts) == 1:
            for part in opened():
                FORMATS[target.format].write_one(stream, part)
        else:
            FORMATS[target.format].write_all(stream, opened())

    run.check_lease()
    replace_file(target.place, path, fill, sum(part.size for part in parts))


def _stamped(folder: Run) -> set[str]:
    """Return the names of the files that earlier exports wrote into a folder and that are there."""
    stamp = folder.read_json(STAMP)
    listed = stamp.get("files") if isinstance(stamp, dict) else None
    found = listed if isinstance(listed, list) else []
    names = [name for name in found if isinstance(name, str) and _OURS.fullmatch(name)]
    infos = folder.info([folder.path(name) for name in names])
    return {name for name, info in zip(names, infos, strict=True) if info.type == pafs.FileType.File}


def _stamp(run: Run, folder: Run, names: set[str]) -> None:
    run.check_lease()
    folder.write_json(STAMP, {"job": "export", "files": sorted(names)})
