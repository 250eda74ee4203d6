"""A replica of a model without Serve around it: shared calls, cancellation, and impossible choices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from caslie_ray.engines import EngineSpec, Request
from caslie_ray.engines.process import ProcessLimits
from caslie_ray.prompts import Prompt
from caslie_ray.serving._model import ModelReplica

CHOICES = ("yes", "no")


def run(test: Callable[[ModelReplica], Awaitable[None]], **settings: Any) -> None:
    """Run a test with a replica, in an event loop as Serve has one."""
    spec = EngineSpec("miniature:voter-llama-3b", **{"engine": "tests.faulty:slow", "batch_size": 1, **settings})

    async def with_replica() -> None:
        replica = ModelReplica("voter", spec, {"voter": "f1"}, ProcessLimits(), 1, 0.02, True)
        try:
            await test(replica)
        finally:
            replica._engine.close()

    asyncio.run(with_replica())


def request(number: int) -> Request:
    return Request(str(number), Prompt(f"Is {number} a number? Only output yes or no."))


def test_requests_that_wait_at_the_same_time_share_a_call() -> None:
    async def test(replica: ModelReplica) -> None:
        answers = await asyncio.gather(*(replica.choose(request(number), CHOICES) for number in range(9)))
        assert [answer.result.key for answer in answers] == [str(number) for number in range(9)]
        assert {tuple(answer.fingerprints.items()) for answer in answers} == {(("voter", "f1"),)}
        assert replica._engine.counters.requests == 9
        assert replica._engine.counters.calls <= 3

    run(test, batch_size=8)


def test_a_cancelled_request_leaves_its_place() -> None:
    async def test(replica: ModelReplica) -> None:
        tasks = [asyncio.ensure_future(replica.choose(request(number), CHOICES)) for number in range(3)]
        await asyncio.sleep(0.1)  # the first is computed, the others wait
        tasks[1].cancel()
        first, third = await asyncio.gather(tasks[0], tasks[2])
        assert (first.result.key, third.result.key) == ("0", "2")
        assert replica._engine.counters.requests == 2
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]

    run(test, engine="tests.faulty:slower")


def test_choices_without_first_tokens_of_their_own_are_a_failure_and_end_nothing() -> None:
    async def test(replica: ModelReplica) -> None:
        pid = replica._engine.pid
        answer = await replica.choose(request(1), ("also buy", "also view"))
        assert answer.result.failure is not None
        assert not answer.result.failure.retryable
        assert "has no first token of its own" in answer.result.failure.reason
        assert replica._engine.pid == pid
        assert (await replica.choose(request(1), CHOICES)).result.failure is None

    run(test, engine="transformers")


def test_an_optional_model_that_cannot_be_loaded_answers_with_failures() -> None:
    async def test() -> None:
        spec = EngineSpec("/no/such/folder")
        replica = ModelReplica("voter", spec, {"voter": "f1"}, ProcessLimits(load_tries=1), 1, 0.0, False)
        answer = await replica.choose(request(1), CHOICES)
        assert "/no/such/folder" in answer.result.failure.reason
        assert answer.result.failure.retryable
        replica.check_health()

    asyncio.run(test())
