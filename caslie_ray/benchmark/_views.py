"""The inputs: the same views, questions and training samples for all systems, in small runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.captioning import View, read_views
from caslie_ray.engines import Request
from caslie_ray.errors import RunError
from caslie_ray.prompts import Prompt, read_spans
from caslie_ray.storage.partitions import partition_of
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS

__all__ = ["VARIANT", "Workload", "copy_table", "images_of", "questions_of", "select", "views_of", "write_given"]

VARIANT = "caslie"
"""The variant of instructions for prediction and training."""

_TEST = ("ind", "ood")


@dataclass(frozen=True)
class Workload:
    """Small runs, of which each job gets a copy.

    Attributes:
        views: has `images` and `views`.
        given: the same views, each with a caption, for voting alone.
        questions: has `instructions` of the test splits.
        examples: has `instructions` of the split train.
        counts: views, images, questions and examples by these names.
    """

    views: Run
    given: Run
    questions: Run
    examples: Run
    counts: Mapping[str, int]


def select(source: Run, target: Run, count: int, digits: int = 1) -> Workload:
    """Take views, questions and training samples from a run, evenly over its partitions.

    Args:
        source: has `images` and `views`, and may have `instructions`.
        target: where to create the small runs.
        count: maximum of each kind.
        digits: digits of an id that name its partition in the small runs; 1 gives 16 partitions.

    Raises:
        RunError: there are no views, or a table cannot be read.
    """
    names = sorted(source.by_partition("views"))
    if not names:
        raise RunError(f"{source.label} has no views: run ingest first")
    views, given, questions, examples = (target.below(name) for name in ("views", "given", "questions", "examples"))
    chosen = pa.concat_tables(_evenly(names, count, lambda name: source.read("views", partition=name)))
    wanted = pc.unique(chosen["image_id"])
    parts = sorted({source.partition(path) for path in source.files("images")})
    images = pa.concat_tables(
        [_only(source.read("images", partition=name), "image_id", wanted) for name in parts if _may_hold(name, wanted)]
    )
    for table, rows in (("views", chosen), ("images", images)):
        for run in (views, given):
            _write(run, table, rows, "image_id", digits)
    counts = {"views": chosen.num_rows, "images": images.num_rows}
    for name, run, splits in (("questions", questions, _TEST), ("examples", examples, ("train",))):
        counts[name] = _take_instructions(source, run, count, splits, digits)
    return Workload(views, given, questions, examples, counts)


def _evenly(names: Sequence[str], count: int, read: Callable[[str], pa.Table]) -> list[pa.Table]:
    """Take up to `count` rows, about equally from each partition; later ones make up for small ones."""
    parts, left = [], count
    for number, name in enumerate(names):
        if not left:
            break
        rows = read(name).slice(0, -(-left // (len(names) - number)))
        parts.append(rows)
        left -= rows.num_rows
    return parts


def _may_hold(partition: str, ids: pa.Array) -> bool:
    return partition == "all" or any(one.startswith(partition) for one in ids.to_pylist())


def _only(rows: pa.Table, column: str, ids: pa.Array) -> pa.Table:
    return rows.filter(pc.is_in(rows[column], ids.combine_chunks() if hasattr(ids, "combine_chunks") else ids))


def _take_instructions(source: Run, target: Run, count: int, splits: Sequence[str], digits: int) -> int:
    where = (pc.field("variant") == VARIANT) & pc.field("split").isin(list(splits))
    files = source.files("instructions")
    parts = _evenly(files, count, lambda path: source.read_file(path, None, where))
    if not any(part.num_rows for part in parts):
        return 0
    rows = pa.concat_tables([part.select(SCHEMAS["instructions"].names) for part in parts])
    _write(target, "instructions", rows, "sample_id", digits)
    return int(rows.num_rows)


def _write(run: Run, table: str, rows: pa.Table, column: str, digits: int) -> None:
    names = pa.array([partition_of(one, digits) for one in rows[column].to_pylist()])
    for name in pc.unique(names).to_pylist():
        run.write(table, name, rows.filter(pc.equal(names, name)))


def copy_table(source: Run, target: Run, tables: Sequence[str]) -> None:
    """Copy tables of a run into another one, file by file."""
    for table in tables:
        for path in source.files(table):
            target.write(table, source.stem(path), source.read_file(path), schema=SCHEMAS[table])


def write_given(run: Run, captions: Mapping[str, str]) -> None:
    """Write captions, by view id, into the views of a run, as if they had come with the data."""
    for path in run.files("views"):
        rows = run.read_file(path)
        found = [
            captions.get(view, given)
            for view, given in zip(rows["view_id"].to_pylist(), rows["given_caption"].to_pylist(), strict=True)
        ]
        at = rows.column_names.index("given_caption")
        run.write("views", run.partition(path), rows.set_column(at, "given_caption", pa.array(found, pa.string())))


def views_of(run: Run) -> list[View]:
    """Return all views of a small run."""
    return read_views(run.read("views"))


def images_of(run: Run) -> dict[str, bytes]:
    """Return all images of a small run, encoded, by image id."""
    rows = run.read("images", ["image_id", "image"])
    return dict(zip(rows["image_id"].to_pylist(), rows["image"].to_pylist(), strict=True))


def questions_of(run: Run) -> list[Request]:
    """Return the instructions of a small run as requests, those of like length next to each other."""
    rows = [row for path in run.files("instructions") for row in run.read_file(path).to_pylist()]
    return sorted(_requests(rows), key=lambda request: (len(request.prompt.text), request.key))


def _requests(rows: Sequence[Mapping[str, Any]]) -> Iterator[Request]:
    for row in rows:
        prompt = Prompt(row["prompt"], read_spans(row["prompt_fields"]), read_spans(row["prompt_captions"]))
        yield Request(row["sample_id"], prompt)
