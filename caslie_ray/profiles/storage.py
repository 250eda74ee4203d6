"""How a run's tables are cut into files and blocks."""

from __future__ import annotations

from pydantic import Field

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["StorageSettings"]


class StorageSettings(Settings):
    """How a run's tables are cut into files and blocks."""

    partition_digits: int = Field(default=1, ge=1, le=4)
    """Number of leading hex digits of an image_id that name its partition: 1 gives 16 partitions, 2 gives 256."""

    block_rows: Positive = 64
    """Maximum rows per block; fewer in a small job, so that at most 1% of it is in flight. A block is written at once:
    it is what a task loses and repeats if its machine is lost."""
