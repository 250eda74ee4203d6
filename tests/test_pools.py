"""The router's decisions, on replicas that do as they are told: no model, no cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, OwnerDiedError, RayTaskError

from caslie_ray import pools
from caslie_ray.engines import Choice, EngineSpec, Request
from caslie_ray.placement import PoolDown, PoolPlan
from caslie_ray.pools import Router
from caslie_ray.profiles.faults import FaultSettings
from caslie_ray.prompts import Prompt

Script = Callable[[str, int], Awaitable[Any]]


class Batch:
    """Stands for the reference to a batch: it can be awaited."""

    def __init__(self, rows: int) -> None:
        self.requests = [Request(f"k{n}", Prompt("?")) for n in range(rows)]

    def __await__(self) -> Any:
        return asyncio.sleep(0, self.requests).__await__()


class Replicas:
    """Makes replicas; `script(method, number)` says what the n-th of them does, from 0."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.made: list[str] = []
        self.killed: list[int] = []

    def remote(self, spec: EngineSpec) -> Any:
        self.made.append(spec.checkpoint)
        return Actor(self, len(self.made) - 1)


class Actor:
    def __init__(self, replicas: Replicas, number: int) -> None:
        self.replicas, self.number = replicas, number

    def __getattr__(self, method: str) -> Any:
        return Method(self, method)


class Method:
    def __init__(self, actor: Actor, name: str) -> None:
        self.actor, self.name = actor, name

    def remote(self, batch: Batch | None = None, *_: Any) -> Awaitable[Any]:
        return self._run(batch)

    async def _run(self, batch: Batch | None) -> Any:
        told = await self.actor.replicas.script(self.name, self.actor.number)
        if self.name == "details":
            return {}
        if told is not None or batch is None:
            return told
        return [Choice(request.key, (0.6, 0.4), 3, False) for request in await batch]


def plan(key: str = "phi", minimum: int = 1, maximum: int = 1) -> PoolPlan:
    return PoolPlan(key, key, EngineSpec(key), 1.0, 0.0, 0.0, minimum, maximum)


def ask(router: Router, rows: int = 1) -> Any:
    batch: Any = Batch(rows)
    return router.choose("phi", [batch], rows, ("yes", "no"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a test's coroutine on a router of these pools, whose replicas follow a script."""

    def go(script: Script, test: Callable[[Router, Replicas], Awaitable[Any]], *plans: PoolPlan, **faults: Any) -> Any:
        replicas = Replicas(script)
        monkeypatch.setattr(pools, "actor_class", lambda *_, **__: replicas)
        monkeypatch.setattr(ray, "kill", lambda actor: replicas.killed.append(actor.number))
        monkeypatch.setattr(ray, "put", lambda part: _batch_of(part))
        monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "node", "Alive": True}])
        monkeypatch.setattr(pools, "_GRACE_S", 0.0)

        async def whole() -> Any:
            router = Router(list(plans) or [plan()], FaultSettings(**{"start_timeout_s": 5.0, **faults}))
            return await asyncio.wait_for(test(router, replicas), 10)

        return asyncio.run(whole())

    return go


def _batch_of(part: list[Request]) -> Batch:
    batch = Batch(0)
    batch.requests = part
    return batch


def raised(cause: Exception) -> RayTaskError:
    return RayTaskError("choose", "where it was raised", cause, "process", 1, "127.0.0.1")


def test_replicas_that_all_fail_at_once_are_a_pool_that_is_down(run: Any) -> None:
    async def script(method: str, number: int) -> str:
        raise raised(RuntimeError("no room"))

    async def test(router: Router, replicas: Replicas) -> None:
        with pytest.raises(PoolDown, match=r"phi \(phi\) cannot be started: RuntimeError: no room"):
            await router.start()

    run(script, test, plan(minimum=3, maximum=3))


def test_a_minimum_that_cannot_be_reached_says_why_and_does_not_wait(run: Any) -> None:
    async def script(method: str, number: int) -> str:
        if number == 1:
            raise raised(RuntimeError("no room"))
        return "node"

    async def test(router: Router, replicas: Replicas) -> None:
        with pytest.raises(PoolDown, match="no room"):
            await asyncio.wait_for(router.start(), 1)

    run(script, test, plan(minimum=2, maximum=2))


def test_every_minimum_comes_before_any_replica_beyond_it(run: Any) -> None:
    async def script(method: str, number: int) -> str:
        return "node"

    async def test(router: Router, replicas: Replicas) -> list[str]:
        await router.start()
        return replicas.made

    assert run(script, test, plan("a", 1, 3), plan("b", 2, 2)) == ["a", "b", "b", "a", "a"]


def test_a_replica_that_the_node_s_memory_ended_is_replaced(run: Any) -> None:
    async def script(method: str, number: int) -> Any:
        if method == "ready":
            return "node"
        if number == 0:
            raise OutOfMemoryError("the node ran out of memory")
        return None

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        answers = await ask(router, 16)
        assert [answer.failure for answer in answers] == [None] * 16
        assert replicas.killed == [0]

    run(script, test)


def test_time_and_memory_are_no_poison(run: Any) -> None:
    async def script(method: str, number: int) -> Any:
        if method == "ready":
            return "node"
        await asyncio.sleep(60)

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        failure = (await ask(router))[0].failure
        assert failure.retryable
        assert failure.reason == "alone in its batch, it gave no answer in 0.1 s 2 times on phi"

    run(script, test, call_timeout_s=0.1)


def test_a_batch_that_is_lost_with_its_owner_costs_no_replica(run: Any) -> None:
    async def script(method: str, number: int) -> Any:
        if method == "ready":
            return "node"
        if len(lost) < 1:
            lost.append(1)
            raise raised(OwnerDiedError("00" * 28, b"", ""))
        return None

    lost: list[int] = []

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        with pytest.raises(RayTaskError):
            await ask(router)
        assert (await ask(router))[0].failure is None
        assert replicas.killed == []

    run(script, test)


def test_a_lost_pool_is_waited_for_and_may_come_back(run: Any) -> None:
    back = asyncio.Event()

    async def script(method: str, number: int) -> Any:
        if method == "ready":
            if number:
                await back.wait()
            return "gone" if number == 0 else "node"
        if number == 0:
            raise ActorDiedError()
        return None

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        failure = (await ask(router))[0].failure
        assert failure.retryable
        assert "phi is down: its replicas are lost, and none started in 0.2 s" in failure.reason
        back.set()
        await asyncio.sleep(0.05)
        assert (await ask(router))[0].failure is None
        assert (await router.stats())["phi"].down is None

    run(script, test, start_timeout_s=0.2)
