"""Requests of concurrent callers in shared engine calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from caslie_ray.engines import Request
from caslie_ray.pipeline.coalescing import Coalescer
from caslie_ray.prompts import Prompt
from tests.clusters import until


def requests(*keys: str) -> list[Request]:
    return [Request(key, Prompt("?")) for key in keys]


class Engine:
    """Answers with the keys; waits with each call until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go = threading.Event()

    def __call__(self, merged: Sequence[Request]) -> list[str]:
        self.calls.append([request.key for request in merged])
        assert self.go.wait(20)
        if any(request.key == "bad" for request in merged):
            raise RuntimeError("the device was lost")
        return [request.key.upper() for request in merged]


class Callers:
    """Calls from threads; each is queued before the next one comes."""

    def __init__(self, engine: Engine, most: int, at_once: int) -> None:
        self._coalescer, self._engine, self._at_once = Coalescer(most, at_once), engine, at_once
        self._threads = ThreadPoolExecutor(16)

    def ask(self, *keys: str, kind: object = "choose") -> Future[list[Any]]:
        calls, queue = self._engine.calls, len(self._coalescer._queue)
        number = len(calls)
        answer = self._threads.submit(self._coalescer.ask, kind, requests(*keys), self._engine)
        if number < self._at_once:
            until(lambda: len(calls) > number, 10, "the call to begin")
        else:
            until(lambda: len(self._coalescer._queue) > queue, 10, "the call to be queued")
        return answer


@pytest.fixture
def engine() -> Engine:
    return Engine()


def answers(*asked: Future[list[Any]]) -> list[list[str]]:
    return [one.result(timeout=20) for one in asked]


def test_what_waits_shares_a_call_and_each_caller_gets_its_own_answers(engine: Engine) -> None:
    callers = Callers(engine, 8, 1)
    asked = [callers.ask("a", "b"), callers.ask("c"), callers.ask("d", "e"), callers.ask("f")]
    engine.go.set()
    assert answers(*asked) == [["A", "B"], ["C"], ["D", "E"], ["F"]]
    assert engine.calls == [["a", "b"], ["c", "d", "e", "f"]]


def test_calls_are_full_and_no_larger_than_the_limit(engine: Engine) -> None:
    callers = Callers(engine, 3, 1)
    asked = [callers.ask("a"), callers.ask("b", "c"), callers.ask("d", "e"), callers.ask(*"fghij"), callers.ask("k")]
    engine.go.set()
    assert answers(*asked) == [["A"], ["B", "C"], ["D", "E"], list("FGHIJ"), ["K"]]
    assert engine.calls == [["a"], list("bcd"), list("efg"), list("hij"), ["k"]]


def test_a_long_block_is_answered_by_several_calls_at_once(engine: Engine) -> None:
    callers = Callers(engine, 2, 2)
    asked = callers.ask(*"abcde")
    until(lambda: len(engine.calls) == 2, 10, "two calls to be in flight")
    engine.go.set()
    assert answers(asked) == [list("ABCDE")]
    assert sorted(engine.calls) == [["a", "b"], ["c", "d"], ["e"]]


def test_nothing_is_asked_for_an_empty_block(engine: Engine) -> None:
    assert Coalescer(2, 1).ask("choose", [], engine) == []
    assert not engine.calls


def test_a_block_of_several_calls_fails_with_one_of_them_and_frees_the_engine(engine: Engine) -> None:
    callers = Callers(engine, 2, 1)
    asked = [callers.ask("a", "b"), callers.ask("c", "bad", "d", "e"), callers.ask("f")]
    engine.go.set()
    assert answers(asked[0], asked[2]) == [["A", "B"], ["F"]]
    with pytest.raises(RuntimeError, match="the device was lost"):
        asked[1].result(timeout=20)
    assert engine.calls == [["a", "b"], ["c", "bad"], ["f"]]


def test_only_requests_of_one_kind_share_a_call(engine: Engine) -> None:
    callers = Callers(engine, 8, 1)
    asked = [
        callers.ask("a"), callers.ask("b", kind=("choose", ("yes", "no"))), callers.ask("c", kind="generate"),
        callers.ask("d", kind=("choose", ("yes", "no"))),
    ]  # fmt: skip
    engine.go.set()
    answers(*asked)
    assert engine.calls == [["a"], ["b", "d"], ["c"]]


def test_calls_in_flight_are_limited(engine: Engine) -> None:
    callers = Callers(engine, 1, 2)
    asked = [callers.ask(key) for key in "abcd"]
    time.sleep(0.1)
    assert engine.calls == [["a"], ["b"]]
    engine.go.set()
    assert answers(*asked) == [["A"], ["B"], ["C"], ["D"]]


def test_what_a_call_raises_reaches_all_who_shared_it_and_no_other(engine: Engine) -> None:
    callers = Callers(engine, 2, 1)
    asked = [callers.ask("a"), callers.ask("bad"), callers.ask("b"), callers.ask("c")]
    engine.go.set()
    assert answers(asked[0], asked[3]) == [["A"], ["C"]]
    for one in asked[1:3]:
        with pytest.raises(RuntimeError, match="the device was lost"):
            one.result(timeout=20)
