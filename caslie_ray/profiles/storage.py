"""How a run's tables are cut into files and blocks."""

from __future__ import annotations

from pydantic import Field

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["StorageSettings"]


class StorageSettings(Settings):
    """How a run's tables are cut into files and blocks."""

    partition_digits: int = Field(default=1, ge=1, le=4)
    """Number of leading hex digits of an image_id that name its partition: 1 gives 16 partitions, 2 gives 256."""

    block_rows: Positive = 256
    """Maximum rows per block; fewer in a small job, so that a killed job repeats about 1%. A model's answers to a block
    are written at once: they are what is repeated if its machine is lost."""
