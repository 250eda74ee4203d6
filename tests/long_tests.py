"""Reads `long_tests.md`: which tests are too long for `make test`, and how long files take.

Run as: ``python -m tests.long_tests``. It prints the files with tests of `make check-faults`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = [
    "CHECKS",
    "COLLECTED",
    "FILE_SECONDS",
    "LONG_TESTS",
    "LongTest",
    "fault_files",
    "file_seconds",
    "in_check_faults",
    "is_long",
    "scope_of",
]

COLLECTED = pytest.StashKey[list[str]]()
"""The node ids that a session has collected, before any are deselected."""
CHECKS = ("make check-demo", "make check-faults")
"""Steps of continuous integration that also hold promises of long tests."""


class LongTest(NamedTuple):
    """Tests that do not run in `make test`.

    Attributes:
        prefix: beginning of their node ids.
        seconds: rough duration of all of them.
        short: what holds the promise for every change: beginnings of node ids, or one of `CHECKS`. `make check-faults`
            alone runs the tests themselves.
    """

    prefix: str
    seconds: int
    short: tuple[str, ...]


def _read(path: Path) -> tuple[tuple[LongTest, ...], dict[str, int]]:
    tests, files = [], {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if row := re.fullmatch(r"\| `([^`]+)` \| (\d+) \|(?: (.*)\|)?", line):
            name, seconds, short = row[1], int(row[2]), row[3]
            if short is None:
                files[name] = seconds
            else:
                tests.append(LongTest(name, seconds, tuple(re.findall(r"`([^`]+)`", short))))
    return tuple(tests), files


LONG_TESTS, FILE_SECONDS = _read(Path(__file__).with_suffix(".md"))
_PREFIXES = tuple(test.prefix for test in LONG_TESTS)
_FAULTS = tuple(test.prefix for test in LONG_TESTS if test.short == ("make check-faults",))


def is_long(nodeid: str) -> bool:
    """Whether a test is too long for `make test`."""
    return nodeid.startswith(_PREFIXES)


def in_check_faults(nodeid: str) -> bool:
    """Whether `make check-faults` runs a test."""
    return nodeid.startswith(_FAULTS)


def fault_files() -> list[str]:
    """The files with tests of `make check-faults`."""
    return sorted({prefix.partition("::")[0] for prefix in _FAULTS})


def file_seconds(path: str, markers: str) -> float:
    """Rough seconds of those tests of a file that pytest's option `-m markers` selects."""
    short = 0 if markers == "faults" else FILE_SECONDS.get(path, 0)
    if markers == "not verify":
        return short
    long = (test for test in LONG_TESTS if test.prefix.startswith(path))
    return short + sum(test.seconds for test in long if markers != "faults" or test.prefix in _FAULTS)


def scope_of(nodeid: str) -> str:
    """The part of the tests that runs in one process, which shares clusters and engines: a file, or `tests/serving`."""
    path = nodeid.partition("::")[0]
    return "tests/serving" if path.startswith("tests/serving/") else path


if __name__ == "__main__":
    print(*fault_files())
