"""The resources that a cluster has, and those that it can grow to."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml

from caslie_ray.cluster.connection import Connection, total_resources
from caslie_ray.cluster.ray_internals import autoscaler_status, cluster_config, max_cluster_resources
from caslie_ray.cluster.shortage import Limits, Need, NodeGroup, Shortage, find_shortage

__all__ = ["LAUNCHER_FILE", "capacity", "cluster_limits", "cluster_shortage", "launcher_capacity"]

LAUNCHER_FILE = Path("~/ray_bootstrap_config.yaml")
"""Configuration of the autoscaler on the head node, as Ray's cluster launcher writes it."""

_REPORT_S = 12.0
_HEAD = "node:__internal_head__"
_UNLISTED = frozenset({"memory"})  # rarely listed in a launcher file


def capacity(connection: Connection, launcher_file: Path = LAUNCHER_FILE) -> dict[str, float] | None:
    """Return the maximum resources of the cluster, such as ``{"CPU": 128.0, "GPU": 8.0}``; None if unknown.

    A Ray on this machine alone cannot grow. For a joined cluster, the platform or the launcher file on the head gives
    the limits of the autoscaler.

    Args:
        connection: how this process is connected to Ray.
        launcher_file: configuration of the autoscaler, as the cluster launcher writes it.
    """
    now = total_resources()
    if not connection.joined:
        return now
    limits = max_cluster_resources()
    if not limits:
        config = _launcher_config(launcher_file)
        limits = None if config is None else launcher_capacity(config)
    if not limits:
        return None
    # A launcher file may omit memory; that of the running nodes, often the head alone, is no limit.
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


def cluster_shortage(needs: list[Need], connection: Connection, launcher_file: Path = LAUNCHER_FILE) -> Shortage | None:
    """Return why replicas can never run together in this cluster; None if they may, or if that is unknown.

    Args:
        needs: replicas that must run at once.
        connection: how this process is connected to Ray.
        launcher_file: configuration of the autoscaler, as the cluster launcher writes it.
    """
    now = Limits(_nodes(), "the cluster has")
    if connection.joined and find_shortage(needs, now) is None:
        return None  # no need to wait for the autoscaler's report
    limits = cluster_limits(connection, launcher_file)
    return None if limits is None else find_shortage(needs, limits)


def cluster_limits(connection: Connection, launcher_file: Path = LAUNCHER_FILE) -> Limits | None:
    """Return the nodes that exist and can be started; None if unknown.

    Unknown includes a cluster without an autoscaler that has lost a node: another may replace it.

    Args:
        connection: how this process is connected to Ray.
        launcher_file: configuration of the autoscaler, as the cluster launcher writes it.
    """
    if not connection.joined:
        return Limits(_nodes(), "this machine has")
    report = _report()
    if report is not None and _is_static(report):
        if any(not node["Alive"] for node in ray.nodes()):
            return None
        return Limits(
            _nodes(), "the cluster, which has no autoscaler, has", "start more or larger nodes before the job"
        )
    started = _startable(launcher_file)
    if started is None:
        return None
    running = [node for node in _nodes() if _HEAD in node.resources or not _among(node, started)]
    what = "the cluster can grow to"
    return Limits([*running, *started], what, "raise max_workers or the machines' size in the cluster's configuration")


def _nodes() -> list[NodeGroup]:
    return [NodeGroup(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _report() -> dict[str, Any] | None:
    """Wait for the report of the head's monitor, which starts some seconds after the head."""
    deadline = time.monotonic() + _REPORT_S
    while (report := autoscaler_status()) is None and time.monotonic() < deadline:
        time.sleep(0.5)
    return report


def _is_static(report: Mapping[str, Any]) -> bool:
    """Return whether there is no autoscaler: its monitor then gives each node its own type."""
    types = (report.get("autoscaler_report") or {}).get("node_type_mapping") or {}
    return bool(types) and all(kind == f"node_{node}" for node, kind in types.items())


def _startable(launcher_file: Path) -> list[NodeGroup] | None:
    """Return the nodes that the autoscaler may start; None if unknown for any of them."""
    config = cluster_config()
    if config is not None and config.node_group_configs:
        return [
            NodeGroup(
                {unit: math.inf if amount == -1 else float(amount) for unit, amount in group.resources.items()},
                math.inf if group.max_count == -1 else group.max_count,
                _UNLISTED - set(group.resources),
            )
            for group in config.node_group_configs
        ]
    launcher = _launcher_config(launcher_file)
    if launcher is None:
        return None
    most = int(launcher.get("max_workers", 0))
    groups = []
    for node_type in launcher.get("available_node_types", {}).values():
        resources = {unit: float(amount) for unit, amount in (node_type.get("resources") or {}).items()}
        count = min(int(node_type.get("max_workers", most)), most)
        if count and not resources:  # detected on the machine
            return None
        groups.append(NodeGroup(resources, count, _UNLISTED - set(resources)))
    return groups


def _among(node: NodeGroup, groups: list[NodeGroup]) -> bool:
    """Return whether a running node is one of those that the autoscaler may start."""
    return any(all(node.amount(unit) == group.amount(unit) for unit in ("CPU", "GPU")) for group in groups)


def _launcher_config(launcher_file: Path) -> dict[str, Any] | None:
    path = launcher_file.expanduser()
    if not path.is_file():
        return None
    config: dict[str, Any] | None = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config
