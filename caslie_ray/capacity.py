"""How much a cluster holds, and how much it can grow to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml

from caslie_ray.cluster import can_grow, room

__all__ = ["LAUNCHER_FILE", "capacity", "launcher_capacity"]

LAUNCHER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Where Ray's cluster launcher puts the configuration of the autoscaler on the head node."""


def capacity(launcher_file: Path = LAUNCHER_FILE) -> dict[str, float] | None:
    """Return the most that the cluster can have, such as ``{"CPU": 128.0, "GPU": 8.0}``; None where it is not known.

    A Ray of this machine alone has what it has. Of a cluster that was joined, the platform or the launcher's file on
    the head says how far the autoscaler may go.

    Args:
        launcher_file: configuration of the autoscaler, as the cluster launcher writes it.
    """
    now = room()
    if not can_grow():
        return now
    # Ray Train reads it from there too; Ray 2.60 has no public name for it.
    limits: Mapping[str, float] | None = ray._private.state.state.get_max_resources_from_cluster_config()
    if not limits:
        path = launcher_file.expanduser()
        limits = launcher_capacity(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else None
    if not limits:
        return None
    # A file need not list memory; that of the nodes that run now, often the head alone, is no limit.
    units = {*limits, *(unit for unit in now if unit != "memory")}
    return {unit: max(now.get(unit, 0.0), float(limits.get(unit, 0.0))) for unit in units}


def launcher_capacity(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources of all nodes that a configuration of the cluster launcher allows.

    Args:
        config: the configuration; node types list `resources` and `max_workers`.
    """
    total: Counter[str] = Counter()
    for node_type in config.get("available_node_types", {}).values():
        nodes = min(int(node_type.get("max_workers", 0)), int(config.get("max_workers", 0)))
        for unit, amount in (node_type.get("resources") or {}).items():
            total[unit] += nodes * amount
    return {unit: float(amount) for unit, amount in total.items()}
