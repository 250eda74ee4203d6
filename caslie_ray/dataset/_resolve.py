"""Third step of `ingest`: image ids take the place of references, and rows set out for their partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.dataset.working import SORTED, fold, write_sorted
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import Run
from caslie_ray.tasks import SPLITS

__all__ = ["Group", "Resolved", "Resolver"]

_FILE_BITS = 40
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Group:
    """Parsed files that are resolved together.

    Attributes:
        name: of the sorted files that come of it.
        files: the place of the source among the sources, and the path of its parsed rows.
    """

    name: str
    files: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The outcome of one group.

    Attributes:
        files: the paths of its sorted files, by kind.
        rows: rows of sources that they come from.
        notes: rows by the place of their source among the sources, and how they were read.
    """

    files: dict[str, str]
    rows: int
    notes: Counter[tuple[int, str]] = field(default_factory=Counter)


class Resolver:
    """Resolves groups.

    Args:
        run: where the rows are, and go.
        fates: what became of each reference, as `fate_table` gives it.
    """

    def __init__(self, run: Run, fates: pa.Table) -> None:
        self._run = run
        self._fates = fates

    def __call__(self, group: Group) -> Resolved:
        """Write the group's sorted files."""
        views: dict[str, Row] = {}
        samples: list[Row] = []
        rejects: list[Row] = []
        rows_read = 0
        notes: Counter[tuple[int, str]] = Counter()
        for place, path in group.files:
            for row, fates in self._rows(path):
                row["order"] = (place << _FILE_BITS) + row.pop("number")
                rows_read += 1
                notes.update((place, note) for note in row.pop("notes") or ())
                if row["reason"] is not None:
                    rejects.append(row | {"key": content_id(row["location"])})
                else:
                    samples.append(_resolve(row, fates, views))
        kinds = {"views": list(views.values()), "samples": samples, "rejects": rejects}
        files: dict[str, str] = {}
        for kind, rows in kinds.items():
            names = SORTED[kind].names
            table = fold(({name: row.get(name) for name in names} for row in rows), SORTED[kind])
            written = write_sorted(self._run, "sorted", f"{kind}-{group.name}", kind, table)
            if written is not None:
                files[kind] = written
        return Resolved(files, rows_read, notes)

    def _rows(self, path: str) -> Iterator[tuple[Row, list[Row]]]:
        """Yield the parsed rows of a file, each with the fates of its references."""
        table = self._run.read_file(path)
        flat = pc.list_flatten(table["locators"])
        fates = iter(self._fates.take(pc.index_in(flat, value_set=self._fates["locator"])).to_pylist())
        for row in table.to_pylist():
            yield row, [next(fates) for _ in row["locators"] or ()]


def _resolve(row: Row, fates: list[Row], views: dict[str, Row]) -> Row:
    """Give a sample its view ids, and collect its views and its lost references."""
    ids: list[str | None] = []
    lost: list[Row] = []
    for at, fate in enumerate(fates):
        if fate["image_id"] is None:
            ids.append(None)
            lost.append({"source": row["sources"][at], "reason": fate["reason"], "retryable": fate["retryable"]})
            continue
        view = _view(row, at, fate["image_id"])
        ids.append(view["view_id"])
        known = views.setdefault(view["view_id"], view)
        if known["given_caption"] is None and view["given_caption"] is not None:
            views[view["view_id"]] = view
    source_ids = [row["source_id"]] if row["source_id"] is not None else None
    return row | {"view_ids": ids, "source_ids": source_ids, "lost": lost, "rank": SPLITS.index(row["split"])}


def _view(row: Mapping[str, Any], at: int, image_id: str) -> Row:
    caption, quality = row["caption_prompts"][at], row["quality_prompts"][at]
    return {
        "view_id": content_id(image_id, caption, quality),
        "image_id": image_id,
        "task": row["task"],
        "caption_prompt": caption,
        "quality_prompt": quality,
        "caption_fields": row["caption_fields"][at],
        "quality_fields": row["quality_fields"][at],
        "given_caption": row["captions"][at],
        "order": row["order"],
    }
