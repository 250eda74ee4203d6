from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from caslie_ray.benchmark._processes import fresh_processes


def _sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def _interrupted(note: Path) -> None:
    with fresh_processes(1) as pool:
        pool.submit(_sleep, str(note))
        while not (note.exists() and note.read_text()):
            time.sleep(0.05)
        raise KeyboardInterrupt


def test_an_interrupt_ends_what_was_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(note)
    assert time.monotonic() - begun < 60
    assert not psutil.pid_exists(int(note.read_text()))


def test_a_fresh_process_returns_its_result() -> None:
    with fresh_processes(1) as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
