"""The process ends before the machine's memory does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caslie_ray.engines.process import ProcessLimits
from caslie_ray.engines.process import _memory as memory
from caslie_ray.engines.process._deaths import Death, describe_exit
from caslie_ray.engines.process._memory import Usage, machine_usage, tree_bytes
from caslie_ray.engines.process._memory_watch import MemoryWatch


class Machine:
    """A machine with 100 bytes, and what the watch has done."""

    def __init__(self, used: int) -> None:
        self.used = used
        self.pid: int | None = os.getpid()
        self.ended: list[Death] = []
        self.looks = 0

    def usage(self) -> Usage:
        self.looks += 1
        return Usage(self.used, 100)

    def end(self, pid: int, why: Death) -> None:
        self.ended.append(why)
        self.pid, self.used = None, 50

    def watch(self, **limits: Any) -> MemoryWatch:
        return MemoryWatch(ProcessLimits(**limits), lambda: self.pid, self.end, lambda: None, self.usage)


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_machine_ends_the_process_once() -> None:
    machine = Machine(used=90)
    watch = machine.watch(memory_share=0.93)
    until(lambda: machine.looks > 1)
    assert not machine.ended
    machine.used = 94
    until(lambda: machine.ended)
    time.sleep(0.3)
    watch.stop()
    (death,) = machine.ended
    assert death.memory
    assert death.reason.startswith("out of memory: 0.0 GiB of 0.0 GiB are in use")


def test_the_second_engine_sees_that_the_first_has_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(used=95)
    watches = [machine.watch() for _ in range(3)]
    until(lambda: machine.ended)
    time.sleep(1.0)
    for watch in watches:
        watch.stop()
    assert len(machine.ended) == 1


def test_a_memory_limit_per_process_is_enforced() -> None:
    machine = Machine(used=10)
    watch = machine.watch(memory_bytes=1)
    until(lambda: machine.ended)
    watch.stop()
    assert "its limit is 0.0 GiB" in machine.ended[0].reason


def test_the_container_s_limit_counts_where_it_is_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < machine_usage().share < 1
    assert tree_bytes(os.getpid()) > 1 << 20
    assert tree_bytes(2**22 + 1) == 0
    groups = Path("/proc/self/cgroup").read_text()
    version_2 = any(line.startswith("0::") for line in groups.splitlines())
    folder = tmp_path if version_2 else tmp_path / "memory"
    folder.mkdir(exist_ok=True)
    (folder / "memory.max").write_text(str(100 << 20))
    (folder / "memory.current").write_text(str(80 << 20))
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {30 << 20}\n")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    if version_2:
        assert machine_usage() == Usage(50 << 20, 100 << 20)
        (folder / "memory.max").write_text("max")
        assert machine_usage().total > 100 << 20


def test_an_oom_kill_is_distinguished_from_others() -> None:
    assert describe_exit(-9, [], oom_killed=True).memory
    assert describe_exit(-9, [], oom_killed=False).reason == "SIGKILL"
    assert not describe_exit(-11, [], oom_killed=True).memory
    crash = describe_exit(-11, ["loaded", "Fatal Python error: Segmentation fault", "", "File x"], oom_killed=False)
    assert str(crash) == "SIGSEGV: Fatal Python error: Segmentation fault"
    assert str(describe_exit(3, ["one", "x.MyError: two", "three"], oom_killed=False)) == "exit code 3: x.MyError: two"
    assert str(describe_exit(3, ["one", "two"], oom_killed=False)) == "exit code 3: two"
