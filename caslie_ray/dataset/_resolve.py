"""Parsed rows become table rows: view ids replace references, and rows are sorted by partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.dataset._intermediate import SORTED, fold, read_range, write_sorted
from caslie_ray.dataset._shuffle import Group
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import Run
from caslie_ray.tasks import SPLITS

__all__ = ["Resolved", "Resolver"]

_FILE_BITS = 40
_KINDS = ("views", "samples", "products", "rejects")
_RESULT = ("image_id", "reason", "retryable", "block")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resolved:
    """The rows of one group.

    Attributes:
        files: the paths of its sorted files, by kind.
        rows: rows of sources that they come from.
        notes: rows by the position of their source among the sources, and by how they were read.
    """

    files: dict[str, str]
    rows: int
    notes: Counter[tuple[int, str]] = field(default_factory=Counter)


class Resolver:
    """Resolves groups.

    Args:
        run: where the rows are read and written.
        results: files with the results of references, by group.
    """

    def __init__(self, run: Run, results: Sequence[str]) -> None:
        self._run = run
        self._results = list(results)

    def __call__(self, group: Group) -> Resolved:
        """Write the group's sorted files."""
        results = read_range(self._run, self._results, "results", group.name)
        tables: dict[str, list[pa.Table]] = {kind: [] for kind in _KINDS}
        rows_read = 0
        notes: Counter[tuple[int, str]] = Counter()
        for place, path in group.files:
            rows: dict[str, list[Row]] = {kind: [] for kind in _KINDS}
            views: dict[str, Row] = {}
            for row, found in self._rows(path, results):
                row["order"] = (place << _FILE_BITS) + row.pop("number")
                rows_read += 1
                notes.update((place, note) for note in row.pop("notes") or ())
                if row["reason"] is not None:
                    rows["rejects"].append(row | {"key": content_id(row["location"])})
                elif row["product_id"] is not None:
                    rows["products"].append(_product(row, found, views))
                else:
                    rows["samples"].append(_sample(row, found, views))
            rows["views"] = list(views.values())
            for kind, some in rows.items():
                schema = SORTED[kind]
                tables[kind].append(fold(({name: row.get(name) for name in schema.names} for row in some), schema))
        files: dict[str, str] = {}
        for kind, parts in tables.items():
            written = write_sorted(self._run, "sorted", f"{kind}-{group.name}", kind, pa.concat_tables(parts))
            if written is not None:
                files[kind] = written
        return Resolved(files, rows_read, notes)

    def _rows(self, path: str, results: pa.Table) -> Iterator[tuple[Row, list[Row]]]:
        """Yield the parsed rows of a file, each with the results of its references."""
        table = self._run.read_file(path)
        flat = pc.list_flatten(table["locators"])
        at = pc.index_in(flat, value_set=results["locator"])
        found = iter(results.select(_RESULT).take(at).to_pylist())
        for row in table.to_pylist():
            yield row, [next(found) for _ in row["locators"] or ()]


def _sample(row: Row, results: list[Row], views: dict[str, Row]) -> Row:
    """Give a sample its view ids, and collect its views and its lost references."""
    ids = [_add_view(row, row["task"], at, result, views) for at, result in enumerate(results)]
    lost = [_lost(row, at, result) for at, result in enumerate(results) if result["image_id"] is None]
    source_ids = [row["source_id"]] if row["source_id"] is not None else None
    return row | {"view_ids": ids, "source_ids": source_ids, "lost": lost, "rank": SPLITS.index(row["split"])}


def _product(row: Row, results: list[Row], views: dict[str, Row]) -> Row:
    """Give a product its views by context and image; a lost image is listed once, not once per context."""
    lost: dict[int, Row] = {}
    found = []
    for at, (context, place, result) in enumerate(zip(row["contexts"], row["places"], results, strict=True)):
        view_id = _add_view(row, context, at, result, views)
        if view_id is None:
            lost[place] = _lost(row, at, result)
        found.append(
            {
                "context": context,
                "place": place,
                "source": row["sources"][at],
                "image_id": result["image_id"],
                "view_id": view_id,
                "reason": result["reason"] if view_id is None else None,
            }
        )
    return {
        "key": content_id(row["product_id"]),
        "product_id": row["product_id"],
        "texts": row["input"],
        "views": found,
        "location": row["location"],
        "order": row["order"],
        "lost": list(lost.values()),
    }


def _lost(row: Row, at: int, result: Row) -> Row:
    return {"source": row["sources"][at], "reason": result["reason"], "retryable": result["retryable"]}


def _add_view(row: Row, task: str, at: int, result: Row, views: dict[str, Row]) -> str | None:
    """Add the view of a position unless it is there; return its id, or None if its image is lost."""
    if result["image_id"] is None:
        return None
    view = _view(row, task, at, result)
    known = views.setdefault(view["view_id"], view)
    if known["given_caption"] is None and view["given_caption"] is not None:
        views[view["view_id"]] = view
    return str(view["view_id"])


def _view(row: Mapping[str, Any], task: str, at: int, result: Row) -> Row:
    caption, quality = row["caption_prompts"][at], row["quality_prompts"][at]
    return {
        "view_id": content_id(result["image_id"], caption, quality),
        "image_id": result["image_id"],
        "task": task,
        "caption_prompt": caption,
        "quality_prompt": quality,
        "caption_fields": row["caption_fields"][at],
        "quality_fields": row["quality_fields"][at],
        "given_caption": row["captions"][at],
        "order": row["order"],
        "block": result["block"],
    }
