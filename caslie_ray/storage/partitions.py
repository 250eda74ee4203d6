"""Partitions: tables are cut by the first hex digits of an id, and files are named after their partition."""

from __future__ import annotations

import posixpath

__all__ = ["partition_names", "partition_of", "partition_of_file"]


def partition_of(image_id: str, digits: int) -> str:
    """Return the partition of an id: its first `digits` hexadecimal digits."""
    return image_id[:digits] if digits else "all"


def partition_names(digits: int) -> list[str]:
    """Return the names of all ``16 ** digits`` partitions."""
    return [format(n, f"0{digits}x") for n in range(16**digits)] if digits else ["all"]


def partition_of_file(path: str) -> str:
    """Return the partition that a table's file belongs to."""
    return posixpath.basename(path).removesuffix(".parquet").split("-", 1)[0]
