"""Which files of a listing belong to a table, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow.fs as pafs

from caslie_ray.storage.lease_files import Fence, epoch_of

__all__ = ["table_files"]


def table_files(
    infos: Sequence[pafs.FileInfo], fence: Fence | None, read_takeovers: Callable[[], Mapping[int, int]]
) -> list[str]:
    """Return the paths of the Parquet files in a listing, oldest first.

    Files that a former job wrote after the run had been taken over from it are left out.

    Args:
        infos: the listing.
        fence: the reader's own lease, if it has one.
        read_takeovers: reads when former epochs were taken over, in ns; called only where needed.
    """
    files = [info for info in infos if info.type == pafs.FileType.File and info.base_name.endswith(".parquet")]
    own = fence.epoch if fence is not None else None
    if any(epoch_of(info.base_name) not in (None, own) for info in files):
        takeovers = fence.takeovers if fence is not None else read_takeovers()
        files = [info for info in files if not _is_late(info, takeovers)]
    # Stores with timestamps in whole seconds show writes of two epochs as simultaneous.
    files.sort(key=lambda info: (info.mtime_ns or 0, epoch_of(info.base_name) or 0, info.path))
    return [info.path for info in files]


def _is_late(info: pafs.FileInfo, takeovers: Mapping[int, int]) -> bool:
    taken = takeovers.get(epoch_of(info.base_name) or 0)
    return taken is not None and (info.mtime_ns or 0) >= taken
