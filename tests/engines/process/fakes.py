"""Engines without a model for the engine process: they do what the prompts say."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

from caslie_ray.engines import CheckpointError, Choice, EngineSpec, EngineStats, Failure, Generation, Request

ENGINE = "tests.engines.process.fakes:load"
FAILING = "tests.engines.process.fakes:fail"
HUB = "tests.engines.process.fakes:hub"
HANGING = "tests.engines.process.fakes:hang"
DYING = "tests.engines.process.fakes:die"
TRACE = "CASLIE_TEST_TRACE"


class FakeEngine:
    """Answers a prompt with its text, unless the text is a command."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hoard: list[bytearray] = []
        self._stats = EngineStats(load_seconds=0.1, details={"answered": 0.0})

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        self._obey(requests)
        return [
            Generation(
                request.key,
                request.prompt.text + (f" {len(request.image)}" if request.image is not None else ""),
                len(request.prompt.text),
                2,
                False,
                Failure("refused", retryable=False) if request.prompt.text == "refuse" else None,
            )
            for request in requests
        ]

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        self._obey(requests)
        return [Choice(request.key, (1 / len(choices),) * len(choices), 3, False) for request in requests]

    def stream(self, request: Request) -> Generator[str, None, Generation]:
        try:
            for word in request.prompt.text.split():
                if word == "refuse":
                    return Generation(request.key, "", 0, 0, False, Failure("refused", retryable=False))
                self._obey([replace(request, prompt=replace(request.prompt, text=word))])
                yield word
            return Generation(request.key, request.prompt.text, 3, len(request.prompt.text.split()), False)
        finally:
            trace("stream ended")

    def prepare(self, requests: Sequence[Request], *, choosing: bool) -> None:
        trace(f"prepared {requests[0].key}{' for a choice' if choosing else ''}")

    def discard(self, requests: Sequence[Request]) -> None:
        trace(f"discarded {requests[0].key}")

    def stats(self) -> EngineStats:
        return self._stats

    def close(self) -> None:
        trace("closed")

    def _obey(self, requests: Sequence[Request]) -> None:
        trace(f"computed {requests[0].key}")
        for request in requests:
            command, _, value = request.prompt.text.partition(":")
            if command == "exit":
                print("ValueError: told to exit", file=sys.stderr, flush=True)
                os._exit(7)
            elif command == "segfault":
                ctypes.string_at(0)
            elif command == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif command == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif command == "hang":
                time.sleep(3600)
            elif command == "sleep":
                time.sleep(float(value))
            elif command == "raise":
                raise RuntimeError("the device was lost")
            elif command == "raise-memory":
                raise MemoryError("no more")
            elif command == "allocate":
                while True:
                    self._hoard.append(bytearray(b"x" * (16 << 20)))
                    time.sleep(0.02)
            elif command == "orphans":
                start_orphans()
        with self._lock:
            answered = self._stats.details["answered"] + len(requests)
            self._stats = replace(self._stats, details={"answered": answered})


def start_orphans() -> None:
    """Start a child, a child in a session of its own, and an orphan; none of them ends by itself."""
    sleep = [sys.executable, "-S", "-c", "import time; time.sleep(3600)"]
    subprocess.Popen(sleep)
    subprocess.Popen(sleep, start_new_session=True)
    fork = f"import subprocess, sys; subprocess.Popen({sleep!r}, start_new_session=True)"
    subprocess.run([sys.executable, "-S", "-c", fork], check=True)


def trace(line: str) -> None:
    """Write a line to the file that the test reads, if it does."""
    if TRACE in os.environ:
        with Path(os.environ[TRACE]).open("a") as file:
            file.write(f"{os.getpid()} {line}\n")


def load(spec: EngineSpec) -> FakeEngine:
    """Load at once."""
    return FakeEngine()


def fail(spec: EngineSpec) -> FakeEngine:
    """Find no checkpoint."""
    raise CheckpointError(f"there is no checkpoint {spec.checkpoint}")


def hub(spec: EngineSpec) -> FakeEngine:
    """Load once the hub, which fails as often as there are lines to come in the trace, answers."""
    trace("load")
    if len(Path(os.environ[TRACE]).read_text().splitlines()) < 3:
        raise ConnectionError("connection reset by peer")
    return FakeEngine()


def hang(spec: EngineSpec) -> FakeEngine:
    """Never load."""
    time.sleep(3600)
    raise AssertionError


def die(spec: EngineSpec) -> FakeEngine:
    """Crash while loading, after the first time."""
    trace("load")
    if len(Path(os.environ[TRACE]).read_text().splitlines()) > 1:
        os._exit(9)
    return FakeEngine()
