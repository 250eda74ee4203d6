"""Connecting to Ray."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from typing import NamedTuple

import ray
import ray.data

from caslie_ray.cluster.ray_internals import hide_data_hints
from caslie_ray.errors import RunError

__all__ = ["Connection", "connect", "quiet_ray_data", "total_resources"]


class Connection(NamedTuple):
    """How this process is connected to Ray.

    Attributes:
        joined: True for an existing cluster, which may grow; False for a Ray started on this machine by this process.
    """

    joined: bool


def connect() -> Connection:
    """Join the cluster at RAY_ADDRESS, or start Ray on this machine; a second call only returns the connection.

    Raises:
        RunError: RAY_ADDRESS is that of a dashboard, which only accepts submitted jobs.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    connection = Connection(joined=bool(address))
    if not ray.is_initialized():
        if address.startswith(("http://", "https://")):
            raise RunError(
                f"RAY_ADDRESS={address} is the address of a dashboard: submit the job to it with `ray job submit`, or"
                " `unset RAY_ADDRESS` to use this machine alone"
            )
        handler = signal.getsignal(signal.SIGTERM)
        # Without an address, Ray joins any cluster that another user has started on this machine.
        target, dashboard = (None, None) if connection.joined else ("local", False)
        ray.init(target, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=dashboard)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # ray.init installs a handler that exits at once
    quiet_ray_data()
    return connection


def quiet_ray_data() -> None:
    """Turn off Ray Data's own progress output: the jobs print progress themselves."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    hide_data_hints()
    # Ray Data 2.60 warns about `max_retries`, its only bound on the retries of a task.
    warnings.filterwarnings("ignore", message="`ray_remote_args`")
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks for")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []


def total_resources() -> dict[str, float]:
    """Return the resources of all nodes together, such as ``{"CPU": 2.0, "GPU": 1.0}``."""
    return {unit: float(amount) for unit, amount in ray.cluster_resources().items()}
