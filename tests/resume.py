"""A pytest plugin that continues a session that was stopped: ``python -m pytest -p tests.resume``.

Tests that passed are noted in pytest's cache, per state of the sources, and the next session deselects them. A session
that ends without a failure removes its note, so that the one after it runs everything.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

_SOURCES = ("caslie_ray", "jobs", "tests")
_NOTE = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    digest = hashlib.sha256()
    for path in sorted(path for name in _SOURCES for path in (config.rootpath / name).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path}\0".encode() + path.read_bytes())
    config.stash[_NOTE] = config.cache.mkdir("resume") / digest.hexdigest()[:16]
    config.pluginmanager.register(_Notes(config.stash[_NOTE]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    note = config.stash[_NOTE]
    passed = set(note.read_text().splitlines()) if note.exists() else set()
    if done := [item for item in items if item.nodeid in passed]:
        config.hook.pytest_deselected(items=done)
        items[:] = [item for item in items if item.nodeid not in passed]


class _Notes:
    """Hooks that are not given the configuration."""

    def __init__(self, note: Path) -> None:
        self._note = note

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            with self._note.open("a") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            self._note.unlink(missing_ok=True)
