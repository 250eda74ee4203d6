"""The poison rule, on a process that is only a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from caslie_ray.engines import Failure, Generation, Request
from caslie_ray.engines.process import EngineDown, ProcessLimits
from caslie_ray.engines.process._deaths import Death, by_memory, by_timeout
from caslie_ray.engines.process._retry import DiedError, RetryRule
from caslie_ray.prompts import Prompt


class Process:
    """Dies in a batch with one of the killers; `asked` holds the keys of each batch, and whether it was alone."""

    def __init__(self, *killers: str, death: Callable[[], Death] = lambda: Death("exit code 1")) -> None:
        self.killers = set(killers)
        self.death = death
        self.asked: list[tuple[tuple[str, ...], bool]] = []
        self.shared = False

    def __call__(self, requests: Sequence[Request], *, alone: bool, cancel: Any = None) -> list[Generation]:
        self.asked.append((tuple(request.key for request in requests), alone))
        if self.killers & {request.key for request in requests}:
            raise DiedError(self.death(), began=True, shared=self.shared and not alone)
        return [Generation(request.key, "fine", 1, 1, False) for request in requests]

    @property
    def deaths(self) -> int:
        return sum(bool(self.killers & set(keys)) for keys, _ in self.asked)


def rows(count: int) -> list[Request]:
    return [Request(str(number), Prompt("?")) for number in range(count)]


def fail(request: Request, failure: Failure) -> Generation:
    return Generation(request.key, "", 0, 0, False, failure)


def rule(down: list[str] | None = None, **limits: Any) -> RetryRule:
    reasons: list[str] = [] if down is None else down
    return RetryRule(ProcessLimits(**limits), "phi", reasons.append)


def failures(answers: Sequence[Generation]) -> dict[str, Failure]:
    return {answer.key: answer.failure for answer in answers if answer.failure is not None}


def test_among_64_rows_three_fatal_ones_fail_alone() -> None:
    process = Process("7", "9", "60")
    answers = rule(failures_in_a_row=50).solve(rows(64), process, fail)
    assert [answer.key for answer in answers] == [str(number) for number in range(64)]
    found = failures(answers)
    assert set(found) == {"7", "9", "60"}
    assert {failure.reason for failure in found.values()} == {
        "poison: alone in its batch, it ended its process (exit code 1) 2 times on phi"
    }
    assert not any(failure.retryable for failure in found.values())
    # All together, three parts of 8, and each killer alone twice.
    assert process.deaths == 1 + 3 + 3 * 2
    assert all(alone for keys, alone in process.asked[1:])


def test_a_try_is_counted_only_for_a_row_that_was_alone() -> None:
    process = Process("0")
    process.shared = True
    answers = rule(tries=1).solve(rows(1), process, fail)
    assert process.asked == [(("0",), False), (("0",), True)]
    assert failures(answers)["0"].reason.endswith("(exit code 1) once on phi")


def test_a_batch_that_had_not_started_is_retried_completely() -> None:
    process = Process("0")

    def ask(requests: Sequence[Request], *, alone: bool, cancel: Any = None) -> list[Generation]:
        if not alone:
            raise DiedError(Death("exit code 1"), began=False, shared=True)
        process.killers.clear()
        return process(requests, alone=alone)

    assert not failures(rule().solve(rows(16), ask, fail))
    assert [len(keys) for keys, _ in process.asked] == [16]


@pytest.mark.parametrize("death", [lambda: by_timeout(3.0), lambda: by_memory("it is full")])
def test_time_and_memory_limits_are_retryable(death: Callable[[], Death]) -> None:
    (failure,) = failures(rule().solve(rows(1), Process("0", death=death), fail)).values()
    assert failure.retryable
    assert failure.reason in (
        "alone in its batch, it gave no answer in 3 s 2 times on phi",
        "alone in its batch, it ended its process (out of memory: it is full) 2 times on phi",
    )


def test_a_second_row_in_a_row_may_be_the_engine_s_fault() -> None:
    one = rule(failures_in_a_row=50)
    found = failures(one.solve(rows(4), Process("1", "2"), fail))
    assert [failure.retryable for failure in found.values()] == [False, True]


def test_consecutive_fatal_rows_fail_alone_while_the_engine_repeats_an_earlier_answer() -> None:
    process = Process(*map(str, range(2, 8)))
    answers = rule(failures_in_a_row=3, tries=1).solve(rows(8), process, fail)
    assert [answer.failure is None for answer in answers] == [True] * 2 + [False] * 6
    assert (("0",), True) in process.asked[4:]


def test_an_engine_that_answers_nothing_is_down() -> None:
    down: list[str] = []
    with pytest.raises(EngineDown, match=r"phi is down: each of the last 2 rows that it was given alone ended its pro"):
        rule(down, failures_in_a_row=2).solve(rows(4), Process("0", "1", "2", "3"), fail)
    assert down == ["each of the last 2 rows that it was given alone ended its process (exit code 1)"]


def test_batches_that_die_in_a_row_take_the_engine_down_unless_it_repeats_an_answer() -> None:
    process = Process("1")
    one = rule(failures_in_a_row=2)
    for _ in range(3):  # an answer in between
        one.solve([rows(2)[0]], process, fail)
        with pytest.raises(ZeroDivisionError):
            one.solve(rows(2), fragile(process), fail)
    died = DiedError(Death("SIGSEGV"), began=True, shared=False)
    one.died(died)
    one.died(died)  # the same death again: two calls report it
    one.died(DiedError(Death("SIGSEGV"), began=True, shared=False))
    assert process.asked[-1] == (("0",), True)
    process.killers.add("0")
    with pytest.raises(EngineDown, match="its process ended 2 times in a row, the last time: SIGSEGV"):
        one.died(DiedError(Death("SIGSEGV"), began=True, shared=False))


def fragile(process: Process) -> Any:
    def ask(requests: Sequence[Request], *, alone: bool, cancel: Any = None) -> list[Generation]:
        if alone:
            raise ZeroDivisionError
        return process(requests, alone=alone)

    return ask
