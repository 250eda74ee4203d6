"""The working files of an export, below ``RUN/export/<key>/``, and how its work is divided.

The key is a hash of all that the parts depend on. So an export that was killed reuses the files of the attempt
before it, and one with other inputs never sees them. The folder is deleted at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from caslie_ray.storage.run import Run
from caslie_ray.storage.shuffle import in_groups

__all__ = ["FOLDER", "Part", "Workspace", "grouped"]

FOLDER = "export"

# Files of a table that one task reads together, in bytes as stored. A product may have dozens of captions.
_GROUP_BYTES = 1 << 20

_T = TypeVar("_T")


class Part(NamedTuple):
    """A partition of `products`.

    Attributes:
        name: the partition.
        files: its files, oldest first.
    """

    name: str
    files: Sequence[str]


@dataclass(frozen=True)
class Workspace:
    """Where an export's tasks exchange rows, and where its parts are kept until the target is written.

    Attributes:
        run: the run.
        key: a hash of the inputs and options.
        caption_groups: number of groups of caption files.
        product_groups: number of groups of product partitions.
    """

    run: Run
    key: str
    caption_groups: int
    product_groups: int

    @property
    def buckets(self) -> int:
        """Number of buckets of view ids: a join task reads about as much as any other task."""
        return max(self.caption_groups, self.product_groups)

    @property
    def folder(self) -> str:
        """The folder of the working files, in the run."""
        return f"{FOLDER}/{self.key}"

    def captions(self, group: int) -> str:
        """Return the path of the captions of a group of files, by view id."""
        return self._path(f"captions-{group:05}.arrow")

    def requests(self, group: int) -> str:
        """Return the path of the views of a group of products, by view id."""
        return self._path(f"requests-{group:05}.arrow")

    def joined(self, bucket: int) -> str:
        """Return the path of a bucket's captions, by the group of products that asks for them."""
        return self._path(f"joined-{bucket:05}.arrow")

    def part(self, name: str) -> str:
        """Return the path of the rows of a partition, in the format of the export."""
        return self._path(f"part-{name}.rows")

    def report(self, name: str) -> str:
        """Return the path, in the run, of the counts of a partition; it is written after the part."""
        return f"{self.folder}/part-{name}.json"

    def existing(self) -> set[str]:
        """Return the paths of the working files that an earlier attempt left."""
        return {info.path for info in self.run.listed(self.run.path(self.folder))}

    def _path(self, name: str) -> str:
        return self.run.path(self.folder, name)


def grouped(items: Sequence[_T], sizes: Sequence[int]) -> list[list[_T]]:
    """Cut items into groups of neighbours of about equal size, which is in bytes."""
    return in_groups(items, sizes, _GROUP_BYTES)
