"""The last step of the tasks: a group of product partitions and its captions become parts in the export's format."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from caslie_ray.errors import RunError, StoreError
from caslie_ray.export._counts import Counts
from caslie_ray.export._formats import FORMATS
from caslie_ray.export._join import read_joined
from caslie_ray.export._products import Selection, views_of
from caslie_ray.export._rows import exported
from caslie_ray.export._workspace import Part, Workspace

__all__ = ["known_counts", "write_parts"]


def write_parts(
    space: Workspace, group: int, parts: Sequence[Part], selection: Selection, form: str
) -> dict[str, Counts]:
    """Write parts of a group of product partitions, and the counts of each; return the counts by partition.

    Args:
        space: has the captions of the group.
        group: the group.
        parts: those of its partitions that are missing.
        selection: what is exported.
        form: a key of `FORMATS`.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    captions = read_joined(space, group)
    found = {}
    for part in parts:
        rows, counts = exported(views_of(space.run, part, selection), captions, every=selection.every)
        data, counts.rows = FORMATS[form].encode(rows)
        counts.bytes = data.size if counts.rows else 0
        if counts.rows:
            space.run.put(space.part(part.name), data)
        space.run.write_json(space.report(part.name), counts.as_json())
        found[part.name] = counts
    return found


def known_counts(space: Workspace, parts: Sequence[Part], existing: Collection[str]) -> dict[str, Counts]:
    """Return the counts of the parts that an earlier attempt wrote, by partition.

    Args:
        space: where the parts are.
        parts: some partitions.
        existing: paths of the working files.

    Raises:
        StoreError: the store does not answer.
    """
    found = {}
    for part in parts:
        if space.run.path(space.report(part.name)) not in existing:
            continue
        try:
            counts = Counts.from_json(space.run.read_json(space.report(part.name)))
        except StoreError:
            raise
        except RunError:  # a damaged file is written again
            continue
        if not counts.rows or space.part(part.name) in existing:
            found[part.name] = counts
    return found
