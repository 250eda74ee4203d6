"""Progress as a person reads it."""

from __future__ import annotations

import io
import re

import pytest

from caslie_ray.monitoring import progress
from caslie_ray.monitoring.progress import Progress, clock


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Time:
    """A clock that advances only on request."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0s"), (42, "42s"), (59.6, "1m00s"), (185, "3m05s"), (3599.4, "59m59s"), (3600, "1h00m"),
     (7800, "2h10m"), (360000, "100h00m")],
)  # fmt: skip
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_complete_progress_line(time: Time) -> None:
    shown = Progress("caption", 1600, stream=io.StringIO())
    time.now += 10
    shown.update(400, note="llama")
    assert shown.line() == "caption ██████░░░░░░░░░░░░░░░░░░  25% · 400/1,600 views · 40.0/s · 30s left · llama"
    shown.update(1600)
    assert shown.line() == "caption ████████████████████████ 100% · 1,600/1,600 views · 160.0/s · 10s · llama"


def test_a_line_without_a_total(time: Time) -> None:
    shown = Progress("ingest", None, "rows", stream=io.StringIO())
    time.now += 2
    shown.add(3000)
    assert shown.line() == "ingest 3,000 rows · 1500.0/s · 2s"
    shown.update(3000, total=6000)
    assert "50%" in shown.line()


@pytest.mark.parametrize(("done", "total"), [(0, 0), (0, 5), (5, 0), (9, 5), (0, None)])
def test_unusual_counts_still_give_a_line(time: Time, done: int, total: int | None) -> None:
    shown = Progress("x", total, stream=io.StringIO())
    shown.update(done)
    assert shown.line().startswith("x ")
    assert "left" not in shown.line()
    assert "900%" not in shown.line()


def test_a_log_gets_a_line_now_and_then(time: Time) -> None:
    stream = io.StringIO()
    with Progress("caption", 200, stream=stream) as shown:
        for _ in range(100):
            time.now += 1
            shown.add(1)
        for _ in range(100):
            time.now += 1
            shown.tick("waiting for a replica")
    lines = stream.getvalue().splitlines()
    assert [re.findall(r"\d+/200", line)[0] for line in lines] == ["10/200", "70/200", *["100/200"] * 3]
    assert lines[-1].endswith("waiting for a replica")
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_one_live_line(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    with Progress("caption", 100, stream=stream) as shown:
        for _ in range(100):
            time.now += 0.1
            shown.add(1, note="a note that is longer than the line is wide")
    shown_lines = stream.getvalue().split("\r\x1b[2K")
    assert 30 <= len(shown_lines) <= 60
    assert stream.getvalue().count("\n") == 1
    assert all(len(line.rstrip("\n")) < 60 for line in shown_lines)


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_is_silent(time: Time, stream: io.StringIO) -> None:
    with Progress("caption", 2, stream=stream, every_s=0, quiet=True) as shown:
        time.now += 100
        shown.add(1)
    assert stream.getvalue() == ""


def test_the_end_is_shown_even_when_the_work_fails(time: Time) -> None:
    stream = io.StringIO()

    def work() -> None:
        with Progress("caption", 2, stream=stream) as shown:
            shown.add(1)
            raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        work()
    assert "1/2 views" in stream.getvalue()
