"""How much memory this machine or container has in use, and a process with its descendants."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["Usage", "machine_usage", "tree_bytes"]

_CGROUPS = Path("/sys/fs/cgroup")


class Usage(NamedTuple):
    """Bytes in use that cannot be reclaimed, and bytes there are."""

    used: int
    total: int

    @property
    def share(self) -> float:
        """Share in use."""
        return self.used / self.total


def machine_usage() -> Usage:
    """Return the usage of this machine, or of this container where its limit is lower; as Ray's monitor reads it."""
    memory = psutil.virtual_memory()
    host = Usage(memory.total - memory.available, memory.total)
    group = _group_usage()
    return group if group is not None and group.total < host.total else host


def tree_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants, shared pages counted once per process."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total


def _group_usage() -> Usage | None:
    """The usage of this process's control group (version 2 or 1); None if it has no limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, current, inactive = _CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, current = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            inactive = "total_inactive_file"
        else:
            continue
        # In a container the group's own folder is mounted at the root.
        for folder in (root / path.lstrip("/"), root):
            try:
                total, used = int((folder / limit).read_text()), int((folder / current).read_text())
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue
            return Usage(max(0, used - int(stat.get(inactive, 0))), total)
    return None
