"""References by bucket: groups of parsed rows write theirs sorted by hash, so that each bucket reads a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.dataset._intermediate import SORTED, write_sorted
from caslie_ray.dataset._references_ledger import file_of, read_fetched, reference_hash
from caslie_ray.storage.partitions import partition_names
from caslie_ray.storage.run import Run

__all__ = ["Group", "Shuffled", "Shuffler", "bucket_names", "groups_of"]

_ONE_BUCKET = 20_000  # references
_LARGEST_BUCKET = 1_000_000
_MOST_DIGITS = 4
_CHUNKS = 10
_GROUPS = 1024
_GROUP_ROWS = 50_000


@dataclass(frozen=True, slots=True)
class Group:
    """Files that one task reads.

    Attributes:
        name: digits that no other group of the job has.
        files: the position of the source among the sources, and the path of its parsed rows.
        ledger: files with ledger rows of any bucket.
    """

    name: str
    files: tuple[tuple[int, str], ...] = ()
    ledger: tuple[str, ...] = ()


def bucket_names(references: int, concurrency: int) -> list[str]:
    """Return the names of the buckets, which are prefixes of hashes.

    Args:
        references: how many there are, repeated ones included. Few have one bucket, whose name has no digits.
        concurrency: tasks at the same time; several buckets are enough for all of them.
    """
    if references <= _ONE_BUCKET:
        return [""]
    digits = 1
    while digits < _MOST_DIGITS and (references > _LARGEST_BUCKET * 16**digits or concurrency > 16**digits):
        digits += 1
    return partition_names(digits)


def groups_of(files: Sequence[tuple[int, str]], chunk_rows: int, concurrency: int) -> list[Group]:
    """Divide parsed files into groups: enough for all tasks, and no more than about a thousand if memory allows."""
    few = min(_CHUNKS, -(-len(files) // (2 * concurrency)))
    many = min(-(-len(files) // _GROUPS), _GROUP_ROWS // chunk_rows)
    size = max(few, many, 1)
    return [
        Group(f"{number:08d}", tuple(files[start : start + size]))
        for number, start in enumerate(range(0, len(files), size))
    ]


class Shuffled(NamedTuple):
    """The paths of a group's references and ledger rows; None if it has none."""

    references: str | None
    ledger: str | None


class Shuffler:
    """Writes the distinct references of a group, or its ledger rows, by hash."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, group: Group) -> Shuffled:
        """Write the group's file."""
        return Shuffled(None, self._ledger(group)) if group.ledger else Shuffled(self._references(group), None)

    def _references(self, group: Group) -> str | None:
        parts = []
        for place, path in group.files:
            column = self._run.read_file(path, ["locators"])["locators"]
            locators = pc.unique(pc.list_flatten(column))
            parts.append(pa.table({"locator": locators, "place": pa.array([place] * len(locators), pa.int32())}))
        rows = pa.concat_tables(parts).group_by(["locator", "place"], use_threads=False).aggregate([])
        names = pa.array([group.name] * rows.num_rows, pa.string())
        rows = rows.append_column("hash", _hashes(rows["locator"])).append_column("group", names)
        return write_sorted(self._run, "references", f"references-{group.name}", "references", rows)

    def _ledger(self, group: Group) -> str | None:
        rows = pa.concat_tables([read_fetched(self._run, path) for path in group.ledger])
        keys = pa.array([file_of(key) for key in rows["key"].to_pylist()], pa.string())
        rows = rows.append_column("hash", _hashes(keys)).select(SORTED["ledger"].names)
        return write_sorted(self._run, "references", f"ledger-{group.name}", "ledger", rows)


def _hashes(locators: pa.Array | pa.ChunkedArray) -> pa.Array:
    return pa.array([reference_hash(locator) for locator in locators.to_pylist()], pa.string())
