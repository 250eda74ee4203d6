"""How a run's tables are cut into files and blocks."""

from __future__ import annotations

from pydantic import Field

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["StorageSettings"]


class StorageSettings(Settings):
    """How a run's tables are cut into files and blocks."""

    partition_digits: int = Field(default=1, ge=1, le=4)
    """First hex digits of an image_id that name its partition: 16 partitions with 1, 256 with 2."""

    block_rows: Positive = 64
    """Rows that one task hands to a model at a time, at most; fewer in a small job, so that no more than 1% of it is in
    hand. They are written together: what a task loses, and does again, with its machine."""
