"""Last step of `ingest`: sorted rows become the files of the tables, partition by partition.

A file is written only where it differs from what stands there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.dataset.working import fold, read_range
from caslie_ray.errors import RunError
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS

__all__ = ["TABLES", "Writer", "Written"]

_FOUND = re.compile(r"^(output) .{,120}? (is none of the options|names several options)", re.DOTALL)
TABLES = ("images", "views", "samples", "rejects")
Row = dict[str, Any]


@dataclass(slots=True)
class Written:
    """What stands in the tables for some partitions.

    Attributes:
        partitions: how many they are.
        files: the paths of the files that belong there.
        changed: how many of them were written just now.
        counts: rows, by what they are.
        reasons: rejects by kind and reason, up to its first colon.
        examples: for each of these the reason in full, the first in alphabetical order.
    """

    partitions: int = 0
    files: list[str] = field(default_factory=list)
    changed: int = 0
    counts: Counter[tuple[str, ...]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, other: Written) -> None:
        """Add what stands for other partitions."""
        self.partitions += other.partitions
        self.files += other.files
        self.changed += other.changed
        self.counts += other.counts
        self.reasons += other.reasons
        for key, reason in other.examples.items():
            self.add_example(key, reason)

    def add_example(self, key: tuple[str, str], reason: str) -> None:
        """Keep a reason in full, if it comes before the one that is kept."""
        self.examples[key] = min(reason, self.examples.get(key, reason))


class Writer:
    """Writes partitions.

    Args:
        run: where the tables go.
        files: the paths of the sorted files, by kind.
    """

    def __init__(self, run: Run, files: Mapping[str, Sequence[str]]) -> None:
        self._run = run
        self._files = {kind: list(paths) for kind, paths in files.items()}

    def __call__(self, partitions: Sequence[str]) -> Written:
        """Write the files of some partitions, pictures before what names them."""
        written = Written(len(partitions))
        for partition in partitions:
            views = self._views(partition)
            needed = sorted(set(views["image_id"].to_pylist()))
            self._images(partition, needed, written)
            self._put("views", partition, views, written)
            written.counts["views",] += views.num_rows
            self._samples(partition, written)
        return written

    def _views(self, partition: str) -> pa.Table:
        rows = self._range("views", partition)
        # Of equal views the first one in the sources, before all one that brings a caption.
        bare = rows["given_caption"].is_null()
        rows = rows.append_column("bare", bare)
        rows = rows.sort_by([("view_id", "ascending"), ("bare", "ascending"), ("order", "ascending")])
        return _firsts(rows, "view_id").select(SCHEMAS["views"].names)

    def _images(self, partition: str, needed: list[str], written: Written) -> None:
        standing = [one for one in self._run.files("images") if _overlap(self._run.partition(one), partition)]
        if len(standing) == 1 and self._run.stem(standing[0]) == partition:
            path = standing[0]
            held = self._run.read_file(path, ["image_id", "width"])
            if held["image_id"].to_pylist() == needed:
                written.files.append(path)
                _count_images(self._run.read_file(path, ["image"]), written)
                return
        ids = pa.array(needed, pa.string())
        parts = [read_range(self._run, [one], "images", partition) for one in standing]
        parts.append(self._range("images", partition))
        rows = pa.concat_tables([part.filter(pc.is_in(part["image_id"], value_set=ids)) for part in parts])
        rows = _firsts(rows.sort_by("image_id"), "image_id")
        if rows["image_id"].to_pylist() != needed:
            raise RunError(f"images of partition {partition} are gone from {self._run.label}: run ingest again")
        self._put("images", partition, rows, written)
        _count_images(rows, written)

    def _samples(self, partition: str, written: Written) -> None:
        rows = self._range("samples", partition)
        rows = rows.sort_by([("sample_id", "ascending"), ("rank", "ascending"), ("order", "ascending")])
        rejects: list[Row] = self._range("rejects", partition).to_pylist()
        rejects = [row | {"kind": "sample", "source": row["location"], "retryable": False} for row in rejects]
        kept: list[int] = []
        source_ids: list[list[str]] = []
        names = ["sample_id", "task", "split", "order", "location", "lost", "view_ids", "source_ids"]
        first: Row = {}
        for at, row in enumerate(rows.select(names).to_pylist()):
            if row["sample_id"] != first.get("sample_id"):
                first = row
                kept.append(at)
                source_ids.append([])
                written.counts["samples", row["task"], row["split"]] += 1
                written.counts["lost",] += len(row["lost"])
                written.counts["positions",] += len(row["view_ids"])
                rejects += [_lost(row, one) for one in row["lost"]]
            elif row["split"] == first["split"]:
                written.counts["repeats",] += 1
            else:
                rejects.append(_repeated(row, first))
                continue
            source_ids[-1] += row["source_ids"] or ()
        schema = SCHEMAS["samples"]
        named = pa.array([list(dict.fromkeys(ids)) or None for ids in source_ids], schema.field("source_ids").type)
        samples = rows.take(pa.array(kept, pa.int64())).select(schema.names)
        self._put(
            "samples", partition, samples.set_column(schema.names.index("source_ids"), "source_ids", named), written
        )
        rejects.sort(key=lambda row: row["order"])
        for row in rejects:
            kind = (row["kind"], _heading(row["reason"]))
            written.reasons[kind] += 1
            written.add_example(kind, row["reason"])
            written.counts["retryable",] += row["retryable"]
        schema = SCHEMAS["rejects"]
        rejected = fold(({name: row.get(name) for name in schema.names} for row in rejects), schema)
        self._put("rejects", partition, rejected, written)

    def _range(self, kind: str, partition: str) -> pa.Table:
        return read_range(self._run, self._files.get(kind, []), kind, partition)

    def _put(self, table: str, partition: str, rows: pa.Table, written: Written) -> None:
        """Write a file unless it stands there already; no rows, no file."""
        if not rows.num_rows:
            return
        standing = self._run.files(table, partition)
        if len(standing) == 1 and self._run.read_file(standing[0]).equals(rows):
            path = standing[0]
        else:
            path = self._run.write(table, partition, rows)
            self._run.delete(one for one in standing if one != path)
            written.changed += 1
        written.files.append(path)


def _count_images(rows: pa.Table, written: Written) -> None:
    written.counts["images",] += rows.num_rows
    written.counts["bytes",] += pc.sum(pc.binary_length(rows["image"])).as_py() or 0


def _overlap(one: str, other: str) -> bool:
    """Whether two partitions, perhaps of runs with other numbers of digits, share ids."""
    return one.startswith(other) or other.startswith(one)


def _firsts(rows: pa.Table, column: str) -> pa.Table:
    """Keep the first row of each run of equal values."""
    values = rows[column].to_pylist()
    firsts = [at for at, value in enumerate(values) if at == 0 or value != values[at - 1]]
    return rows.take(pa.array(firsts, pa.int64()))


def _lost(sample: Row, lost: Row) -> Row:
    known = {name: sample[name] for name in ("sample_id", "location", "order")}
    return known | lost | {"kind": "image", "source_id": _source_id(sample)}


def _source_id(sample: Row) -> str | None:
    return next(iter(sample["source_ids"] or ()), None)


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
