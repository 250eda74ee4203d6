"""Sorted rows become the files of the tables, partition by partition; a file is rewritten only if its rows differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.dataset._intermediate import FOLDER, MISSING, fold, read_range
from caslie_ray.dataset._product_table import image_reject, product_rows
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS

__all__ = ["TABLES", "Writer", "Written", "by_partition"]

_FOUND = re.compile(r"^(output) .{,120}? (is none of the options|names several options)", re.DOTALL)
TABLES = ("images", "views", "samples", "products", "rejects")
Row = dict[str, Any]


Existing = Mapping[str, Sequence[str]]
"""The files of a partition before it is written, by table."""


def by_partition(partitions: Sequence[str], files: Mapping[str, Iterable[str]]) -> list[tuple[str, Existing]]:
    """Return each partition with the existing files of it, by table.

    Args:
        partitions: all partitions of the job.
        files: the files of each table, listed once. Those of `images` may belong to partitions of more or fewer digits.
    """
    found: dict[str, dict[str, list[str]]] = {partition: {} for partition in partitions}
    digits = len(partitions[0])
    for table, paths in files.items():
        for path in paths:
            name = Run.partition(path)
            overlapping = [name[:digits]]
            if table == "images" and len(name) < digits:
                overlapping = [partition for partition in partitions if partition.startswith(name)]
            elif table != "images":
                overlapping = [name]
            for partition in overlapping:
                if partition in found:
                    found[partition].setdefault(table, []).append(path)
    return list(found.items())


@dataclass(slots=True)
class Written:
    """The tables' files of some partitions.

    Attributes:
        files: their paths, with sizes in bytes.
        partitions: how many they are.
        changed: how many of them were written by this job.
        missing: the paths of files with ids of images that no file has.
        counts: rows, by what they are.
        reasons: rejects by kind and reason, up to its first colon.
        examples: for each of these the full reason, the first in alphabetical order.
    """

    files: dict[str, int] = field(default_factory=dict)
    partitions: int = 0
    changed: int = 0
    missing: list[str] = field(default_factory=list)
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, other: Written) -> None:
        """Add the files of other partitions."""
        self.files |= other.files
        self.partitions += other.partitions
        self.changed += other.changed
        self.missing += other.missing
        self.counts += other.counts
        self.reasons += other.reasons
        for key, reason in other.examples.items():
            self.add_example(key, reason)

    def add_example(self, key: tuple[str, str], reason: str) -> None:
        """Keep the first full reason in alphabetical order."""
        self.examples[key] = min(reason, self.examples.get(key, reason))


class Writer:
    """Writes partitions.

    Args:
        run: where the tables are written.
        files: the paths of the sorted files, by kind.
    """

    def __init__(self, run: Run, files: Mapping[str, Sequence[str]]) -> None:
        self._run = run
        self._files = {kind: list(paths) for kind, paths in files.items()}

    def __call__(self, partitions: Sequence[tuple[str, Existing]]) -> Written:
        """Write the files of some partitions, images before the rows that name them.

        A partition that lacks an image is not written; the ids of such images are.
        """
        written = Written(partitions=len(partitions))
        for partition, existing in partitions:
            views = self._views(partition)
            blocks = dict(zip(views["image_id"].to_pylist(), views["block"].to_pylist(), strict=True))
            if not self._images(partition, blocks, existing.get("images", ()), written):
                continue
            self._put("views", partition, views.select(SCHEMAS["views"].names), existing, written)
            written.counts["views",] += views.num_rows
            rejects: list[Row] = self._range("rejects", partition).to_pylist()
            rejects = [row | {"kind": "sample", "source": row["location"], "retryable": False} for row in rejects]
            rejects += self._samples(partition, existing, written)
            rejects += self._products(partition, existing, written)
            self._rejects(partition, rejects, existing, written)
        written.files |= {info.path: info.size for info in self._run.info(list(written.files))}
        return written

    def _views(self, partition: str) -> pa.Table:
        rows = self._range("views", partition)
        # Of equal views the first one in the sources, but one with a caption before one without.
        bare = rows["given_caption"].is_null()
        rows = rows.append_column("bare", bare)
        rows = rows.sort_by([("view_id", "ascending"), ("bare", "ascending"), ("order", "ascending")])
        return _firsts(rows, "view_id")

    def _images(
        self, partition: str, blocks: Mapping[str, str | None], existing: Sequence[str], written: Written
    ) -> bool:
        """Write the images of a partition; return False if one is missing.

        Args:
            partition: the partition.
            blocks: the image ids, each with its file of fetched images.
            existing: files of the table with such ids.
            written: takes the counts.
        """
        needed = sorted(blocks)
        if len(existing) == 1 and self._run.stem(existing[0]) == partition:
            path = existing[0]
            # Reading a second column finds damage that the first one does not show.
            present = self._run.read_file(path, ["image_id", "width"])
            if present["image_id"].to_pylist() == needed:
                written.files[path] = 0
                _count_images(self._run.read_file(path, ["image"]), written)
                return True
        parts = [self._taken([path], partition, needed) for path in existing]
        found = {one for part in parts for one in part["image_id"].to_pylist()}
        by_block: dict[str, list[str]] = {}
        for image_id in needed:
            block = blocks[image_id]
            if image_id not in found and block is not None:
                by_block.setdefault(self._run.path(FOLDER, "pending", block), []).append(image_id)
        for info in self._run.info(list(by_block)):
            if info.is_file:
                parts.append(self._taken([info.path], partition, by_block[info.path]))
        rows = pa.concat_tables([SCHEMAS["images"].empty_table(), *parts])
        rows = _firsts(rows.sort_by("image_id"), "image_id")
        if missing := sorted(set(needed).difference(rows["image_id"].to_pylist())):
            ids = pa.table({"image_id": pa.array(missing, pa.string())})
            written.missing.append(self._run.write(f"{FOLDER}/missing", partition, ids, MISSING))
            return False
        self._put("images", partition, rows, {"images": existing}, written)
        _count_images(rows, written)
        return True

    def _taken(self, paths: Sequence[str], partition: str, ids: Sequence[str]) -> pa.Table:
        return read_range(self._run, paths, "images", partition, pc.field("image_id").isin(pa.array(ids, pa.string())))

    def _samples(self, partition: str, existing: Existing, written: Written) -> list[Row]:
        """Write the samples of a partition; return the rejects among them and among their images."""
        rows = self._range("samples", partition)
        rows = rows.sort_by([("sample_id", "ascending"), ("rank", "ascending"), ("order", "ascending")])
        rejects: list[Row] = []
        kept: list[int] = []
        source_ids: list[list[str]] = []
        names = ["sample_id", "task", "split", "output", "order", "location", "lost", "view_ids", "source_ids"]
        first: Row = {}
        for at, row in enumerate(rows.select(names).to_pylist()):
            if row["sample_id"] != first.get("sample_id"):
                first = row
                kept.append(at)
                source_ids.append([])
                written.counts["samples", row["task"], row["split"]] += 1
                written.counts["unlabelled",] += not row["output"]
                written.counts["lost",] += len(row["lost"])
                written.counts["positions",] += len(row["view_ids"])
                rejects += [image_reject(row, one, _source_id(row)) for one in row["lost"]]
            elif row["split"] == first["split"]:
                written.counts["repeats",] += 1
            else:
                rejects.append(_repeated(row, first))
                continue
            source_ids[-1] += row["source_ids"] or ()
        schema = SCHEMAS["samples"]
        named = pa.array([list(dict.fromkeys(ids)) or None for ids in source_ids], schema.field("source_ids").type)
        samples = rows.take(pa.array(kept, pa.int64())).select(schema.names)
        samples = samples.set_column(schema.names.index("source_ids"), "source_ids", named)
        self._put("samples", partition, samples, existing, written)
        return rejects

    def _products(self, partition: str, existing: Existing, written: Written) -> list[Row]:
        """Write the products of a partition; return the rejects among them and among their images."""
        if not self._files.get("products"):
            return []
        earlier = (row for path in existing.get("products", ()) for row in self._run.read_file(path).to_pylist())
        found = product_rows(self._range("products", partition).to_pylist(), earlier)
        written.counts += found.counts
        self._put("products", partition, found.rows, existing, written)
        return found.rejects

    def _rejects(self, partition: str, rejects: list[Row], existing: Existing, written: Written) -> None:
        rejects.sort(key=lambda row: row["order"])
        for row in rejects:
            kind = (row["kind"], _heading(row["reason"]))
            written.reasons[kind] += 1
            written.add_example(kind, row["reason"])
            written.counts["retryable",] += row["retryable"]
        schema = SCHEMAS["rejects"]
        rejected = fold(({name: row.get(name) for name in schema.names} for row in rejects), schema)
        self._put("rejects", partition, rejected, existing, written)

    def _range(self, kind: str, partition: str) -> pa.Table:
        return read_range(self._run, self._files.get(kind, []), kind, partition)

    def _put(self, table: str, partition: str, rows: pa.Table, existing: Existing, written: Written) -> None:
        """Write a file unless it is there already; no rows, no file."""
        if not rows.num_rows:
            return
        old = existing.get(table, ())
        if len(old) == 1 and Run.partition(old[0]) == partition and self._run.read_file(old[0]).equals(rows):
            path = old[0]
        else:
            path = self._run.write(table, partition, rows)
            self._run.delete(one for one in old if one != path and Run.partition(one) == partition)
            written.changed += 1
        written.files[path] = 0


def _count_images(rows: pa.Table, written: Written) -> None:
    written.counts["images",] += rows.num_rows
    written.counts["bytes",] += pc.sum(pc.binary_length(rows["image"])).as_py() or 0


def _firsts(rows: pa.Table, column: str) -> pa.Table:
    """Keep the first row of each run of equal values."""
    values = rows[column].to_pylist()
    firsts = [at for at, value in enumerate(values) if at == 0 or value != values[at - 1]]
    return rows.take(pa.array(firsts, pa.int64()))


def _source_id(row: Row) -> str | None:
    return next(iter(row["source_ids"] or ()), None)


def _heading(reason: str) -> str:
    """Return what a reason is counted under: its text up to the first colon, without the value that was found."""
    return _FOUND.sub(r"\1 \2", reason).split(":", 1)[0]


def _repeated(row: Row, first: Row) -> Row:
    where = f"the same sample is in split {first['split']} at {first['location']}, which is kept"
    return {
        "kind": "sample",
        "source": row["location"],
        "reason": f"repeated in split {row['split']}: {where}",
        "retryable": False,
        "location": row["location"],
        "sample_id": row["sample_id"],
        "source_id": _source_id(row),
        "order": row["order"],
    }
