"""Runs jobs as from the command line, and records when each started and ended.

The benchmark runs it as ``python -m caslie_ray.benchmark._job_process SPEC RESULT``: SPEC is a JSON list of
{name, argv}. RESULT is written at the end: {jobs: [{begin, end, code}], exported: [[time, store, workers], …],
resources: {…}}, with memory in MiB as in Ray's metrics.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import ray
from ray.exceptions import RayError

from caslie_ray import jobs
from caslie_ray.cli import Arguments, main

__all__ = ["used_store_mib", "worker_mib"]

_JOBS: dict[str, Callable[[Arguments], int]] = {
    "ingest": jobs.ingest_job,
    "caption": jobs.caption_job,
    "predict": jobs.predict_job,
    "train": jobs.train_job,
}
_EVERY_S = 1.0
_WORKERS = re.compile(
    r'^ray_component_rss_mb\{[^}]*Component="ray::(?!DashboardAgent|RuntimeEnvAgent)[^}]*\} (\S+)', re.MULTILINE
)
_USED = re.compile(r"^ray_object_store_used_memory\{[^}]*\} (\S+)", re.MULTILINE)


def used_store_mib(metrics: str) -> float:
    """Return the MiB that object stores use, from the metrics that one node's Ray exports for Prometheus."""
    return sum(float(value) for value in _USED.findall(metrics)) / 2**20


def worker_mib(metrics: str) -> float:
    """Return the resident MiB of all Ray workers, including shared pages, from the same metrics."""
    return sum(float(value) for value in _WORKERS.findall(metrics)) * 1e6 / 2**20


def _poll(samples: list[tuple[float, float, float]], ended: threading.Event) -> None:
    while not ended.wait(_EVERY_S):
        if not ray.is_initialized():
            continue
        with suppress(RayError, OSError, ValueError):
            store = workers = 0.0
            for node in ray.nodes():
                if node["Alive"] and (port := node.get("MetricsExportPort")):
                    address = f"http://{node['NodeManagerAddress']}:{port}/metrics"
                    with urlopen(address, timeout=_EVERY_S) as answer:
                        text = answer.read().decode()
                    store += used_store_mib(text)
                    workers += worker_mib(text)
            samples.append((time.time(), store, workers))


def _run(spec: list[dict[str, Any]]) -> dict[str, Any]:
    samples: list[tuple[float, float, float]] = []
    ended = threading.Event()
    threading.Thread(target=_poll, args=(samples, ended), daemon=True).start()
    done = []
    for one in spec:
        begin = time.time()
        code = main(f"The job {one['name']}.", _JOBS[one["name"]], source=one["name"] == "ingest", argv=one["argv"])
        done.append({"begin": begin, "end": time.time(), "code": code})
    ended.set()
    resources = ray.cluster_resources() if ray.is_initialized() else {}
    return {"jobs": done, "exported": samples, "resources": resources}


if __name__ == "__main__":
    _spec, _result = sys.argv[1:]
    Path(_result).write_text(json.dumps(_run(json.loads(Path(_spec).read_text()))))
