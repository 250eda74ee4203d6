"""The job `serve` in a process of its own, on a Ray of its own and a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_S = 300.0


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def client(self, **settings: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120.0, **settings)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def serving(
    settings: Sequence[str], run: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """Start a server, wait until it is ready, and stop it at the end."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="serve-", dir="/tmp") as folder:
        log = Path(folder, "log.txt")
        command = [
            sys.executable, str(ROOT / "jobs" / "serve.py"), "--set", f"serving.port={port}", *settings,
            *(["--run", str(run)] if run else []),
        ]  # fmt: skip
        inherited = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "CASLIE_TOKEN")}
        with log.open("w") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
                env={**inherited, "RAY_TMPDIR": folder, **(environment or {})},
            )  # fmt: skip
            try:
                server = Server(f"http://127.0.0.1:{port}", process, log)
                _wait(server)
                yield server
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait(server: Server) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.process.poll() is None, server.log.read_text()
        try:
            if httpx.get(f"{server.url}/readyz", timeout=5.0).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not ready after {START_S:g} s: {server.log.read_text()}")
