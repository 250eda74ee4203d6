"""The working files of a fusion, below ``RUN/fusion/<key>/``, and how its work is divided.

The key is a hash of all that the instructions depend on. So a fusion that was killed goes on with the files of the
attempt before it, and one with other inputs never sees them. The folder is deleted at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import CONTEXT_FREE_FOLDER
from caslie_ray.storage.shuffle import in_groups

__all__ = ["FOLDER", "Part", "Workspace", "grouped"]

FOLDER = "fusion"

# Files of a table that one task reads together, in bytes as stored: about 20 MiB of text.
_GROUP_BYTES = 4 << 20

_T = TypeVar("_T")


class Part(NamedTuple):
    """A partition of `samples`.

    Attributes:
        name: the partition.
        files: its files by table, those of the instructions to replace among them.
    """

    name: str
    files: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Workspace:
    """Where a fusion's tasks exchange rows.

    Attributes:
        run: the run.
        key: a hash of the inputs.
        caption_groups: number of groups of caption files, first those with context, then those without.
        sample_groups: number of groups of sample partitions.
        answers: whether voters' answers are needed.
        shuffled: whether captions are drawn for the variant `shuffled`.
    """

    run: Run
    key: str
    caption_groups: tuple[int, int]
    sample_groups: int
    answers: bool
    shuffled: bool

    @property
    def buckets(self) -> int:
        """Number of buckets of view ids: a join task reads about as much as any other task."""
        return max(*self.caption_groups, self.sample_groups)

    @property
    def folder(self) -> str:
        """The folder of the working files, in the run."""
        return f"{FOLDER}/{self.key}"

    def captions(self, context_free: bool, group: int) -> str:
        """Return the path of the captions of a group of files, by view id."""
        return self._path(f"{'free' if context_free else 'captions'}-{group:05}.arrow")

    def requests(self, group: int) -> str:
        """Return the path of the views that a group of samples asks for, by view id."""
        return self._path(f"requests-{group:05}.arrow")

    def draws(self, bucket: int) -> str:
        """Return the path of the lots of a bucket's captioned views."""
        return self._path(f"draws-{bucket:05}.arrow")

    def joined(self, bucket: int) -> str:
        """Return the path of a bucket's captions, by the group of samples that asks for them."""
        return self._path(f"joined-{bucket:05}.arrow")

    def report(self, group: int) -> str:
        """Return the path, in the run, of the report of a group of samples that is fused."""
        return f"{self.folder}/report-{group:05}.json"

    def source(self, context_free: bool) -> Run:
        """Return the run that holds the captions with context, or those without."""
        return self.run.below(CONTEXT_FREE_FOLDER) if context_free else self.run

    def _path(self, name: str) -> str:
        return self.run.path(self.folder, name)

    def existing(self) -> set[str]:
        """Return the paths of the working files that an earlier attempt left."""
        return {info.path for info in self.run.listed(self.run.path(self.folder))}


def grouped(items: Sequence[_T], sizes: Sequence[int]) -> list[list[_T]]:
    """Cut items into groups of neighbours of about equal size, which is in bytes."""
    return in_groups(items, sizes, _GROUP_BYTES)
