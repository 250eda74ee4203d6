"""A Ray cluster of separate node processes on this machine; a test kills, drains and adds nodes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

REPLICA = "MapWorker(MapBatches(ModelStage_"
"""How the title of a replica's process begins, behind `ray::`."""

__all__ = ["REPLICA", "Nodes", "Submitted", "nodes", "until"]

ROOT = Path(__file__).resolve().parent.parent


def until(true: Callable[[], Any], limit_s: float = 120.0, what: str = "it") -> Any:
    """Wait until a call returns something true; return that."""
    deadline = time.monotonic() + limit_s
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited {limit_s:g} s for {what}"
        time.sleep(0.05)
    return value


# Ray notices a lost node in 2 seconds; by default it takes 20.
_FAST_HEALTH_CHECKS = {
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """The cluster: a head without CPUs, where the driver runs, and workers with one declared GPU each."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        # Ray writes the address of a cluster there: other processes of this machine must not find this one.
        self._folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # paths of sockets must be short
        self._environment = {**(environment or {}), "RAY_TMPDIR": self._folder}
        self.workers: list[Any] = []
        self.begin_again()

    def begin_again(self) -> None:
        """Start a head; again after one was lost."""
        with self._with_environment():
            self._cluster = Cluster(
                initialize_head=True, connect=False, shutdown_at_exit=False,
                head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": _FAST_HEALTH_CHECKS},
            )  # fmt: skip

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def metrics(self) -> str:
        """The URL where Prometheus scrapes the metrics of the head and of drivers."""
        head: Any = self._cluster.head_node
        return f"http://{head.node_ip_address}:{head.metrics_export_port}/metrics"

    def add(self, num_cpus: int = 2, num_gpus: int = 1, labels: dict[str, str] | None = None) -> Any:
        """Add a worker node."""
        with self._with_environment():
            node = self._cluster.add_node(wait=False, num_cpus=num_cpus, num_gpus=num_gpus, labels=labels)
        self.workers.append(node)
        return node

    def kill(self, node: Any) -> None:
        """Kill all processes of a node at once, as the loss of its machine does."""
        self.workers.remove(node)
        gone = [process for pid in self.processes_of(node) for process in _tree(pid)]
        for process in gone:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(gone, timeout=10)
        self._cluster.worker_nodes.discard(node)

    def processes_of(self, node: Any) -> set[int]:
        """The processes of a node, replicas and tasks included."""
        own = [process.process.pid for kind in node.all_processes.values() for process in kind]
        return {process.pid for pid in own for process in _tree(pid)}

    def replicas(self, node: Any = None, kind: str = REPLICA) -> list[psutil.Process]:
        """The processes of replicas, or of other actors, on one node or on all workers."""
        found = []
        for pid in {pid for one in ([node] if node else self.workers) for pid in self.processes_of(one)}:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if "".join(process.cmdline()[:1]).startswith(f"ray::{kind}"):
                    found.append(process)
        return found

    def busy(self, kind: str = REPLICA) -> Any:
        """The node where a replica, or another actor, runs; wait until there is one."""
        return until(lambda: next((one for one in self.workers if self.replicas(one, kind)), None), what=kind)

    def drain(self, node: Any, seconds: int) -> None:
        """Drain a node as a spot preemption does: it ends in so many seconds."""
        subprocess.run(
            [
                str(Path(sys.executable).parent / "ray"), "drain-node",
                "--address", self.address, "--node-id", node.node_id,
                "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
                "--deadline-remaining-seconds", str(seconds),
            ],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def fill(self, count: int = 2) -> None:
        """Add or kill workers until there are so many."""
        while len(self.workers) < count:
            self.add()
        while len(self.workers) > count:
            self.kill(self.workers[-1])

    def close(self) -> None:
        """Stop the cluster and remove its files."""
        for node in list(self.workers):
            self.kill(node)
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def lose_head(self) -> None:
        """Kill the head as the loss of its machine does, and the workers with it."""
        for pid in self.processes_of(self._cluster.head_node):
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        for node in list(self.workers):
            self.kill(node)

    @contextmanager
    def _with_environment(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ.update(self._environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def submit(self, name: str, *arguments: str) -> Submitted:
        """Start a job with its driver in a separate process."""
        return Submitted(name, arguments, {**self._environment, "RAY_ADDRESS": self.address})


class Submitted:
    """A running job."""

    def __init__(self, name: str, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self._output: str | None = None

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def end(self, limit_s: float = 120.0) -> tuple[int, str]:
        """Wait for the job to end; return its exit code and its output."""
        if self._output is None:
            self._output, _ = self.process.communicate(timeout=limit_s)
        return self.process.returncode, self._output


def _tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def nodes(workers: int = 2, environment: dict[str, str] | None = None) -> Iterator[Nodes]:
    """A cluster, as a context."""
    cluster = Nodes(environment)
    try:
        cluster.fill(workers)
        yield cluster
    finally:
        cluster.close()
