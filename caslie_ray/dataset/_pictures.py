"""Folders of pictures without a table: each picture is a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import pyarrow.fs as pafs

from caslie_ray.dataset._limits import ROW_BYTES, Ratio
from caslie_ray.dataset._shapes import Found
from caslie_ray.hashing import content_id

__all__ = ["is_picture", "listing_version", "read_pictures"]

_PICTURE = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?)$", re.IGNORECASE)


def is_picture(path: str) -> bool:
    """Whether a file is a picture, by its name."""
    return _PICTURE.search(path) is not None


def listing_version(files: Iterable[tuple[str, pafs.FileInfo]]) -> str:
    """Return a text that changes when a picture is added, removed, renamed or written again.

    Args:
        files: paths below the folder, in order.
    """
    parts = (f"{below}|{info.size}|{info.mtime_ns}" for below, info in files if is_picture(below))
    return f"pictures|{content_id(*parts)}"


def read_pictures(files: Iterable[tuple[str, pafs.FileInfo]], ratio: Ratio) -> Iterator[Found]:
    """Yield a row per picture: its path below the folder as `id` and `image`.

    Args:
        files: paths below the folder, in order.
        ratio: is given a size for each row, since a listing is not compressed.
    """
    pictures = (below for below, _ in files if is_picture(below))
    for number, below in enumerate(pictures, 1):
        ratio.size += ROW_BYTES
        yield Found(number, {"id": below, "image": below})
