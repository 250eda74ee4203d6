"""An engine in a process of its own, on engines without a model."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from caslie_ray.engines import EngineError, EngineSpec, Failure, Request
from caslie_ray.engines.load_errors import LoadError
from caslie_ray.engines.process import Cancel, Cancelled, EngineDown, EngineProcess, ProcessLimits, RequestFailed
from caslie_ray.prompts import Prompt
from tests.engines.process import fakes

Make = Callable[..., EngineProcess]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes engine processes and closes them; `events` of each are in the list of that name."""
    made: list[EngineProcess] = []

    def build(engine: str = fakes.ENGINE, events: list[str] | None = None, **settings: Any) -> EngineProcess:
        own = {name: settings.pop(name) for name in ("overlap", "environment") if name in settings}
        limits = ProcessLimits(**{"load_pause_s": 0.01, **settings})
        on_event = None if events is None else events.append
        made.append(EngineProcess(EngineSpec("phi-4", engine), limits, name="phi", on_event=on_event, **own))
        return made[-1]

    yield build
    for process in made:
        process.close()


def ask(*texts: str) -> list[Request]:
    return [Request(str(number), Prompt(text)) for number, text in enumerate(texts)]


def texts(process: EngineProcess, *texts: str, cancel: Cancel | None = None) -> list[str]:
    return [answer.text for answer in process.generate(ask(*texts), cancel=cancel)]


def failure(process: EngineProcess, *texts: str) -> Failure:
    (found,) = [answer.failure for answer in process.generate(ask(*texts)) if answer.failure is not None]
    return found


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_answers_as_the_engine_does(make: Make) -> None:
    process = make()
    assert texts(process, "a", "b") == ["a", "b"]
    (shown,) = process.generate([Request("k", Prompt("see"), bytes(300_000))])
    assert (shown.key, shown.text) == ("k", "see 300000")
    assert process.choose(ask("a", "b"), ["yes", "no"])[1].probabilities == (0.5, 0.5)
    assert process.generate([]) == []
    refused = process.generate(ask("refuse", "c"))
    assert (refused[0].failure, refused[1].failure) == (Failure("refused", retryable=False), None)
    with pytest.raises(ValueError, match="at least two choices"):
        process.choose(ask("a"), ["yes", "Yes "])
    stats, counters = process.stats(), process.counters
    assert (stats.calls, stats.failures, stats.new_tokens) == (7, 1, 10)
    assert stats.details == {"answered": 7.0}
    assert (counters.starts, counters.deaths, counters.calls, counters.requests) == (1, 0, 4, 7)


def test_a_row_costs_less_than_a_tenth_of_a_millisecond(make: Make) -> None:
    process = make()
    rows = [Request(str(number), Prompt("word " * 100), bytes(20_000)) for number in range(64)]
    process.generate(rows)
    engine = psutil.Process(process.pid)
    before, ours = engine.cpu_times(), time.process_time()
    for _ in range(40):
        process.generate(rows)
    after = engine.cpu_times()
    theirs = after.user + after.system - before.user - before.system
    assert (time.process_time() - ours + theirs) / (40 * 64) < 1e-4


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("exit", r"exit code 7: ValueError: told to exit"),
        ("segfault", r"SIGSEGV: Fatal Python error: Segmentation fault"),
        ("kill", r"SIGKILL"),
        ("raise", r"RuntimeError: the device was lost"),
    ],
)
def test_a_row_that_ends_the_process_fails_alone(make: Make, command: str, how: str) -> None:
    events: list[str] = []
    process = make(events=events)
    answers = process.generate(ask("a", command, "b"))
    assert [answer.text for answer in answers] == ["a", "", "b"]
    assert answers[1].failure == Failure(
        f"poison: alone in its batch, it ended its process ({how}) 2 times on phi", retryable=False
    )
    assert len(events) == 3
    assert all(line.startswith("an engine process was lost: " + how.split(":")[0]) for line in events)
    assert (process.counters.starts, process.counters.deaths, process.counters.failures) == (4, 3, 1)
    assert texts(process, "c") == ["c"]


@pytest.mark.parametrize("command", ["hang", "stop"])
def test_a_row_that_hangs_fails_alone_and_may_be_retried(make: Make, command: str) -> None:
    process = make(call_timeout_s=0.5, tries=1)
    started = time.monotonic()
    assert failure(process, command) == Failure("alone in its batch, it gave no answer in 0.5 s once on phi", True)
    assert time.monotonic() - started < 10
    assert texts(process, "a") == ["a"]


def test_a_row_that_takes_too_much_memory_fails_alone_and_may_be_retried(make: Make) -> None:
    events: list[str] = []
    process = make(events=events, memory_bytes=400 << 20, tries=1)
    found = failure(process, "allocate")
    assert found.retryable
    assert "out of memory: it uses 0.4 GiB, its limit is 0.4 GiB" in found.reason
    assert "out of memory" in events[0]
    assert failure(process, "raise-memory").retryable
    assert texts(process, "a") == ["a"]


def test_among_64_rows_only_three_fatal_ones_get_a_failure_reason(make: Make) -> None:
    process = make(tries=1)
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    rows = ["exit" if number in (5, 33, 63) else str(number) for number in range(64)]
    answers = process.generate(ask(*rows))
    assert [number for number, answer in enumerate(answers) if answer.failure is not None] == [5, 33, 63]
    assert [answer.text for answer in answers if answer.failure is None] == [row for row in rows if row != "exit"]
    assert process.counters.deaths == 1 + 3 + 3
    assert texts(process, "a") == ["a"]
    until(lambda: len(os.listdir("/proc/self/fd")) <= files and threading.active_count() <= threads)


def test_calls_overlap_and_busy_seconds_are_counted_once(make: Make) -> None:
    process = make(overlap=4)
    with ThreadPoolExecutor(6) as threads:
        started = time.monotonic()
        assert list(threads.map(lambda _: texts(process, "sleep:0.5"), range(4))) == [["sleep:0.5"]] * 4
        taken = time.monotonic() - started
        assert taken < 1.5
        busy = process.counters.busy_s
        assert 0.5 <= busy <= taken
        list(threads.map(lambda _: process.choose(ask("sleep:0.2"), ["a", "b"]), range(6)))
    assert process.counters.choosing_s == pytest.approx(process.counters.busy_s - busy)


def test_rows_in_the_process_of_a_fatal_row_do_not_fail(make: Make) -> None:
    process = make(overlap=4, failures_in_a_row=50)
    with ThreadPoolExecutor(4) as threads:
        slow = [threads.submit(process.generate, ask("sleep:1", "a")) for _ in range(3)]
        until(lambda: process.counters.busy_s > 0.1)
        killer = threads.submit(process.generate, ask("exit"))
        assert [answer.failure for call in slow for answer in call.result()] == [None] * 6
    (answer,) = killer.result()
    assert answer.failure is not None
    assert answer.failure.reason.startswith("poison: alone in its batch")
    assert process.counters.deaths == 3  # together, and alone twice


def test_one_more_call_waits_in_the_process_and_starts_its_time_when_it_begins(make: Make) -> None:
    process = make(call_timeout_s=1.5)
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(texts, process, "sleep:0.9") for _ in range(3)]
        assert [call.result() for call in calls] == [["sleep:0.9"]] * 3
    assert process.counters.deaths == 0


def test_the_next_call_is_prepared_while_one_is_computed(make: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    process = make(environment={fakes.TRACE: str(trace)})
    cancel = Cancel()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(process.generate, [Request("first", Prompt("sleep:1"))])
        until(lambda: "computed first" in trace.read_text() if trace.exists() else False)
        second = threads.submit(process.choose, [Request("second", Prompt("b"))], ["yes", "no"])
        until(lambda: "prepared second for a choice" in trace.read_text())
        third = threads.submit(process.generate, [Request("third", Prompt("c"))], cancel=cancel)
        assert not first.done()
        second.result()
        third.result()
        first = threads.submit(process.generate, [Request("first", Prompt("sleep:0.5"))])
        until(lambda: trace.read_text().count("computed first") == 2)
        second = threads.submit(process.choose, [Request("fourth", Prompt("b"))], ["yes", "no"], cancel=cancel)
        until(lambda: "prepared fourth" in trace.read_text())
        cancel.set()
        first.result()
        until(lambda: "discarded fourth" in trace.read_text())
    assert "computed fourth" not in trace.read_text()


def test_an_engine_that_stopped_answering_is_down(make: Make) -> None:
    process = make(failures_in_a_row=2, tries=1)
    with pytest.raises(EngineDown, match="phi is down: each of the last 2 rows that it was given alone ended its"):
        process.generate(ask("exit", "exit", "exit"))
    assert process.down is not None
    with pytest.raises(EngineDown, match="phi is down"):
        process.generate(ask("a"))


def test_rows_are_at_fault_while_the_engine_repeats_an_earlier_answer(make: Make) -> None:
    process = make(failures_in_a_row=2, tries=1)
    assert texts(process, "a") == ["a"]
    answers = process.generate(ask("exit", "exit", "exit", "b"))
    assert [answer.failure is None for answer in answers] == [False, False, False, True]


def test_a_permanent_load_failure_is_not_retried(make: Make) -> None:
    with pytest.raises(LoadError, match="there is no checkpoint phi-4") as caught:
        make(fakes.FAILING)
    assert caught.value.failure.kind == "final"
    with pytest.raises(LoadError, match="cannot be imported"):
        make("tests.engines.process.fakes:nothing")


def test_a_hub_that_does_not_answer_is_asked_again(make: Make, tmp_path: Path) -> None:
    events: list[str] = []
    trace = {fakes.TRACE: str(tmp_path / "trace")}
    process = make(fakes.HUB, events=events, environment=trace)
    assert texts(process, "a") == ["a"]
    assert [line.split(":")[0] for line in events] == [f"the model was not loaded (try {n} of 4)" for n in (1, 2)]
    (tmp_path / "trace").unlink()
    with pytest.raises(LoadError, match="connection reset") as caught:
        make(fakes.HUB, environment=trace, load_tries=2)
    assert caught.value.failure.kind == "retry"


def test_a_load_that_hangs_ends_in_time(make: Make) -> None:
    started = time.monotonic()
    with pytest.raises(LoadError, match=r"was not loaded in 3 s \(raise faults.start_timeout_s") as caught:
        make(fakes.HANGING, start_timeout_s=3.0)
    assert caught.value.failure.kind == "retry"
    assert time.monotonic() - started < 15


def test_an_engine_that_cannot_be_loaded_again_is_down(make: Make, tmp_path: Path) -> None:
    process = make(fakes.DYING, environment={fakes.TRACE: str(tmp_path / "trace")}, load_tries=2)
    with pytest.raises(EngineDown, match=r"phi is down: .*its process ended \(exit code 9\)"):
        process.generate(ask("exit"))


def test_a_stream_yields_pieces_as_they_come(make: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    process = make(environment={fakes.TRACE: str(trace)})
    stream = process.stream(Request("s", Prompt("one two sleep:1 three")))
    started = time.monotonic()
    assert [next(stream), next(stream)] == ["one", "two"]
    assert time.monotonic() - started < 0.9
    assert list(stream) == ["sleep:1", "three"]
    with pytest.raises(RequestFailed, match="refused"):
        list(process.stream(Request("s", Prompt("one refuse"))))
    left = process.stream(Request("s", Prompt("a sleep:0.3 b c d e")))
    next(left)
    left.close()
    until(lambda: trace.read_text().count("stream ended") == 3)
    assert trace.read_text().count("computed") <= 5 + 3
    with pytest.raises(RequestFailed, match="in the middle of its answer, it ended its process") as caught:
        list(process.stream(Request("s", Prompt("one exit"))))
    assert caught.value.failure.retryable
    with pytest.raises(RequestFailed, match="poison: alone in its batch"):
        list(process.stream(Request("s", Prompt("exit"))))
    assert list(process.stream(Request("s", Prompt("fine")))) == ["fine"]


def test_a_call_can_be_cancelled_while_it_waits_and_while_it_is_computed(make: Make) -> None:
    process = make(call_timeout_s=2.0)
    cancels = [Cancel() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(texts, process, "sleep:1", cancel=cancel) for cancel in cancels]
        until(lambda: process.counters.busy_s > 0.1)
        for cancel in cancels:
            cancel.set()
        started = time.monotonic()
        for call in calls:
            with pytest.raises(Cancelled):
                call.result()
        assert time.monotonic() - started < 0.5
        assert texts(process, "a") == ["a"]
        with pytest.raises(Cancelled):
            texts(process, "a", cancel=cancels[0])
    assert process.counters.deaths == 0


def test_a_cancelled_call_that_hangs_blocks_no_other_call(make: Make) -> None:
    process = make(call_timeout_s=1.0)
    cancel = Cancel()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(Cancelled):
        texts(process, "hang", cancel=cancel)
    assert texts(process, "a") == ["a"]


def test_close_lets_the_engine_close_and_may_come_twice(make: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    process = make(environment={fakes.TRACE: str(trace)})
    pid = process.pid
    assert pid is not None
    process.close()
    process.close()
    assert trace.read_text() == f"{pid} closed\n"
    assert not psutil.pid_exists(pid)
    assert process.pid is None
    assert process.counters.deaths == 0
    with pytest.raises(EngineError, match="phi-4 is closed"):
        process.generate(ask("a"))


def test_close_ends_a_call_that_is_computed(make: Make) -> None:
    events: list[str] = []
    process = make(events=events)
    with ThreadPoolExecutor(3) as threads:
        calls = [threads.submit(texts, process, "hang") for _ in range(3)]
        until(lambda: process.counters.busy_s > 0.1)
        started = time.monotonic()
        process.close()
        for call in calls:
            with pytest.raises(EngineError, match="phi-4 is closed"):
                call.result()
        assert time.monotonic() - started < 5
    assert not events


def test_the_environment_of_the_process_can_be_set(make: Make, tmp_path: Path) -> None:
    process = make(environment={"OMP_NUM_THREADS": "3"})
    assert psutil.Process(process.pid).environ()["OMP_NUM_THREADS"] == "3"
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{process.pid}/oom_score_adj").read_text()) == min(1000, own + 500)
