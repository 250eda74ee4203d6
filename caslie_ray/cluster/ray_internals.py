"""All uses of Ray that its public API does not cover, checked against Ray 2.60. Read this file when Ray is upgraded."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import ray
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.exceptions import RayError
from ray.util.metrics import Counter

__all__ = [
    "CHECKPOINT_SNAPSHOT",
    "ExecutionCallback",
    "autoscaler_status",
    "cluster_config",
    "draining_nodes",
    "hide_data_hints",
    "max_cluster_resources",
    "start_at_zero",
]

CHECKPOINT_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""File in which Ray Train lists the checkpoints of a run."""

_AUTOSCALER_STATUS = b"__autoscaling_status"


def max_cluster_resources() -> dict[str, float] | None:
    """Return the resources that the platform lets the autoscaler grow to; None if it does not say. Ray Train reads the
    same value."""
    limits: Mapping[str, float] | None = ray._private.state.state.get_max_resources_from_cluster_config()
    return {unit: float(amount) for unit, amount in limits.items()} if limits else None


def cluster_config() -> Any:
    """Return the autoscaler's `ClusterConfig` message with its `node_group_configs`; None if there is none."""
    return ray._private.state.state.get_cluster_config()


def autoscaler_status() -> dict[str, Any] | None:
    """Return the report that the head's monitor writes every five seconds; None before the first one."""
    try:
        worker: Any = ray._private.worker.global_worker
        stored = worker.gcs_client.internal_kv_get(_AUTOSCALER_STATUS, None)
        report: dict[str, Any] | None = json.loads(stored or b"null")
    except ValueError:
        return None
    return report


def draining_nodes() -> dict[str, float]:
    """Return the deadline of each draining node, by node id, in seconds since 1970; 0 means now.

    Empty while the head does not answer: callers poll.
    """
    try:
        deadlines: dict[str, int] = ray._private.state.state.get_draining_nodes()
    except RayError:
        return {}
    return {node: deadline_ms / 1000 for node, deadline_ms in deadlines.items()}


def hide_data_hints() -> None:
    """Silence what Ray Data logs at every start and no user can act on."""
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    logging.getLogger("ray.data._internal.execution.operators.map_operator").addFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("Specifying both num_cpus and num_gpus")


def start_at_zero(counter: Counter, tags: dict[str, str] | None = None) -> None:
    """Export a counter's series with the value 0, which `Counter.inc` refuses."""
    counter._record(0.0, tags)
