"""The router's decisions, on replicas that do as they are told: no model, no cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, OwnerDiedError, RayTaskError

from caslie_ray.engines import Choice, EngineSpec, Request
from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.errors import PoolDown
from caslie_ray.pipeline import replicas as replicas_module
from caslie_ray.pipeline import router as pools
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.router import Router
from caslie_ray.profiles.faults import FaultSettings
from caslie_ray.prompts import Prompt

Script = Callable[[str, int], Awaitable[Any]]
Place = Callable[[int, list[int]], Awaitable[None]]


class Batch:
    """Stands for the reference to a batch: it can be awaited."""

    def __init__(self, rows: int) -> None:
        self.requests = [Request(f"k{n}", Prompt("?")) for n in range(rows)]

    def __await__(self) -> Any:
        return asyncio.sleep(0, self.requests).__await__()


class Replicas:
    """Makes replicas; `script(method, number)` says what the n-th of them does, from 0.

    `place(number, killed)` returns once there is room for the n-th on a node.
    """

    def __init__(self, script: Script, place: Place | None = None) -> None:
        self.script = script
        self.place = place
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
        if self.name == "node":
            if self.actor.replicas.place is not None:
                await self.actor.replicas.place(self.actor.number, self.actor.replicas.killed)
            return "node"
        told = await self.actor.replicas.script(self.name, self.actor.number)
        if self.name == "details":
            return {}
        if told is not None or batch is None:
            return told
        return [Choice(request.key, (0.6, 0.4), 3, False) for request in await batch]


def plan(
    key: str = "phi", minimum: int = 1, maximum: int = 1, engine: str = "transformers", needed: bool = False
) -> PoolPlan:
    return PoolPlan(key, key, EngineSpec(key, engine), 1.0, 0.0, 0.0, minimum, maximum, needed)


def ask(router: Router, rows: int = 1) -> Any:
    batch: Any = Batch(rows)
    return router.choose("phi", [batch], rows, ("yes", "no"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a test's coroutine on a router of these pools, whose replicas follow a script."""

    def go(
        script: Script,
        test: Callable[[Router, Replicas], Awaitable[Any]],
        *plans: PoolPlan,
        draining: dict[str, float] | None = None,
        place: Place | None = None,
        **faults: Any,
    ) -> Any:
        draining = {} if draining is None else draining
        replicas = Replicas(script, place)
        monkeypatch.setattr(pools, "actor_class", lambda *_, **__: replicas)
        monkeypatch.setattr(ray, "kill", lambda actor: replicas.killed.append(actor.number))
        monkeypatch.setattr(ray, "put", lambda part: _batch_of(part))
        monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "node", "Alive": True}])
        monkeypatch.setattr(replicas_module, "_GRACE_S", 0.0)
        monkeypatch.setattr(replicas_module, "_UNSEEN_S", 0.2)
        monkeypatch.setattr(pools, "_DRAIN_EVERY_S", 0.05)
        monkeypatch.setattr(pools, "draining_nodes", lambda: draining)

        async def whole() -> Any:
            router = Router(
                list(plans) or [plan()], FaultSettings(**{"start_timeout_s": 5.0, "load_pause_s": 0.01, **faults})
            )
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

    run(script, test, plan(needed=True, minimum=3, maximum=3))


def test_a_minimum_that_cannot_be_reached_says_why_and_does_not_wait(run: Any) -> None:
    async def script(method: str, number: int) -> str:
        if number == 1:
            raise raised(LoadError(LoadFailure("final", "no such checkpoint", "check `checkpoint`")))
        await asyncio.sleep(60)
        return "node"

    async def test(router: Router, replicas: Replicas) -> None:
        with pytest.raises(PoolDown, match=r"phi \(phi\) cannot be started: no such checkpoint \(check `checkpoint`\)"):
            await asyncio.wait_for(router.start(), 1)
        assert len(replicas.made) == 2, "what is final was tried again"

    run(script, test, plan(needed=True, minimum=2, maximum=2))


def test_a_load_that_may_pass_is_tried_again_and_counts_as_news(run: Any) -> None:
    """All tries together take longer than the time limit for the start, which holds for each of them."""

    async def script(method: str, number: int) -> str:
        await asyncio.sleep(0.2)
        if number < 3:
            raise raised(LoadError(LoadFailure("retry", "429 Too Many Requests", "later")))
        return "node"

    async def test(router: Router, replicas: Replicas) -> Any:
        await router.start()
        return (await router.glance())[0], (await router.stats())["phi"]

    news, stats = run(script, test, plan(needed=True), start_timeout_s=0.8, load_pause_s=0.1)
    assert (stats.ready, stats.deaths) == (1, 3)
    assert [line.split(": ", 2)[1] for line in news] == [
        f"a replica failed to load on node (try {number} of 4)" for number in (1, 2, 3)
    ]


def test_a_start_without_news_says_the_last_failure(run: Any) -> None:
    async def script(method: str, number: int) -> str:
        if number == 0:
            raise raised(RuntimeError("no room"))
        await asyncio.sleep(60)
        return "node"

    async def test(router: Router, replicas: Replicas) -> None:
        with pytest.raises(
            PoolDown, match=r"0 of 1 replicas were ready after 0\.3 s.*last failure: RuntimeError: no room"
        ):
            await router.start()

    run(script, test, plan(needed=True), start_timeout_s=0.3)


def test_another_node_that_never_comes_is_not_waited_for_without_end(run: Any) -> None:
    async def script(method: str, number: int) -> Any:
        if method == "ready" and number in (0, 2):
            raise raised(LoadError(LoadFailure("elsewhere", "disk full", "free some")))
        return "node" if method == "ready" else None

    class Unplaced(Method):
        async def _run(self, batch: Batch | None) -> Any:
            if self.name == "node" and self.actor.number == 1:
                await asyncio.sleep(60)
            return await super()._run(batch)

    async def test(router: Router, replicas: Replicas) -> list[str]:
        for pool in router._pools.values():
            pool.loading.grows = True
        await router.start()
        assert replicas.killed == [0, 1, 2]
        assert len(replicas.made) == 4, "it was waited for twice"
        return (await router.glance())[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Actor, "__getattr__", lambda actor, method: Unplaced(actor, method))
        news = run(script, test, plan(needed=True), start_timeout_s=0.5)
    assert news[1] == "phi: a replica found no room on another node in time: any node will do"


def test_extra_replicas_that_fail_to_load_are_tried_again_and_given_up(run: Any) -> None:
    async def script(method: str, number: int) -> Any:
        if method == "ready" and number > 0:
            raise raised(RuntimeError("no room"))
        return "node" if method == "ready" else None

    async def test(router: Router, replicas: Replicas) -> list[str]:
        await router.start()
        while len(router._news) < 4:
            await asyncio.sleep(0.01)
        assert (await ask(router))[0].failure is None
        return (await router.glance())[0]

    news = run(script, test, plan(needed=True, maximum=3), load_tries=2)
    assert len(news) == 4
    assert sum("given up" in line for line in news) == 2


def test_every_minimum_comes_before_any_replica_beyond_it(run: Any) -> None:
    async def script(method: str, number: int) -> str:
        return "node"

    async def test(router: Router, replicas: Replicas) -> list[str]:
        await router.start()
        await asyncio.sleep(0)
        return replicas.made

    assert run(script, test, plan("a", 1, 3), plan("b", 1, 2)) == ["a", "b", "b", "a", "a"]


async def until_one_goes(number: int, killed: list[int]) -> None:
    """Three captioners, 0, 2 and 3, leave no room for phi's second replica, 4."""
    while number == 4 and not {0, 2, 3} & set(killed):
        await asyncio.sleep(0.01)


async def until_pending_ones_go(number: int, killed: list[int]) -> None:
    """The captioner's extras, 2 and 3, wait for room ahead of phi's second replica, 4."""
    if number in (2, 3):
        await asyncio.sleep(60)
    while number == 4 and not {2, 3} <= set(killed):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("place", "gone"), [(until_one_goes, 1), (until_pending_ones_go, 2)], ids=["loaded", "pending"]
)
@pytest.mark.parametrize("drained", [False, True], ids=["died", "drained"])
def test_a_pool_that_lost_its_last_replica_gets_the_room_of_another_s_extra(
    run: Any, monkeypatch: pytest.MonkeyPatch, place: Place, gone: int, drained: bool
) -> None:
    monkeypatch.setattr(pools, "_ROOM_S", 0.2)
    draining: dict[str, float] = {}

    async def script(method: str, number: int) -> Any:
        if method == "choose" and number == 1 and not drained:
            raise ActorDiedError()
        if method == "ready":
            return "leaving" if number == 1 else "node"
        return None

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        await asyncio.sleep(0.1)
        if drained:
            draining["leaving"] = time.time()
            await asyncio.sleep(0.2)
        assert (await ask(router))[0].failure is None
        await asyncio.sleep(0.5)
        assert replicas.made[:5] == ["captioner", "phi", "captioner", "captioner", "phi"]
        taken = {0, 2, 3} & set(replicas.killed)
        assert len(taken) == gone
        assert replicas.made[5:] == ["captioner"] * gone, "what was taken was not started again"

    run(script, test, plan("captioner", 1, 3), plan("phi"), place=place, draining=draining)


def test_a_pool_whose_next_replica_loads_costs_no_other_pool_a_replica(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "_ROOM_S", 0.05)

    async def script(method: str, number: int) -> Any:
        if method == "choose" and number == 1:
            raise ActorDiedError()
        if method == "ready":
            if number == 4:
                await asyncio.sleep(0.4)
            return "leaving" if number == 1 else "node"
        return None

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        await asyncio.sleep(0.1)
        assert (await ask(router))[0].failure is None
        assert replicas.killed == [1]

    run(script, test, plan("captioner", 1, 3), plan("phi"))


async def broken_first(method: str, number: int) -> Any:
    """The first GPU is broken."""
    if method == "ready" and number == 0:
        raise raised(LoadError(LoadFailure("elsewhere", "No CUDA GPUs are available", "check it")))
    return "node" if method == "ready" else None


def test_a_replica_that_fails_through_its_gpu_keeps_it_until_the_next_has_another(run: Any) -> None:
    """Ray would give the next one the same GPU, and on one machine there is no other node."""
    placed: list[tuple[int, list[int]]] = []

    async def place(number: int, killed: list[int]) -> None:
        placed.append((number, list(killed)))

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        assert replicas.killed == [0]

    run(broken_first, test, replace(plan(needed=True), gpus=1.0), place=place, load_pause_s=0.1)
    assert placed == [(0, []), (1, [])]


def test_the_only_gpu_is_tried_again(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_OTHER_GPU_S", 0.2)

    async def place(number: int, killed: list[int]) -> None:
        while number and 0 not in killed:
            await asyncio.sleep(0.01)

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        assert set(replicas.killed) == {0, 1}
        assert len(replicas.made) == 3

    run(broken_first, test, replace(plan(needed=True), gpus=1.0), place=place, load_pause_s=0.1)


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


def test_an_engine_that_takes_several_batches_is_given_them(run: Any) -> None:
    at_once = 0
    most = 0

    async def script(method: str, number: int) -> Any:
        nonlocal at_once, most
        if method == "ready":
            return "node"
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.1)
        at_once -= 1
        return None

    async def test(router: Router, replicas: Replicas) -> Any:
        await router.start()
        await asyncio.gather(*(ask(router, 4) for _ in range(8)))
        return (await router.stats())["phi"]

    stats = run(script, test, plan(engine="vllm"))
    assert most == 4
    assert (stats.calls, stats.requests) == (8, 32)
    # Two rounds of 0.1 s: seconds in which batches overlap are not counted twice.
    assert 0.2 <= stats.busy_s < 0.5
    assert stats.choosing_s == pytest.approx(stats.busy_s)


def test_what_shared_a_replica_with_the_row_that_killed_it_pays_nothing(run: Any) -> None:
    killer = "k7"
    alive: dict[int, list[str]] = {}

    async def script(method: str, number: int) -> Any:
        return "node" if method == "ready" else None

    async def test(router: Router, replicas: Replicas) -> tuple[list[Any], list[str]]:
        await router.start()
        answers = await asyncio.gather(*(ask(router, rows) for rows in (8, 4, 4, 1)))
        return [answer for part in answers for answer in part], (await router.glance())[0]

    class Deadly(Method):
        async def _run(self, batch: Batch | None) -> Any:
            if batch is None or self.name == "details":
                return "node" if batch is None else {}
            number, held = self.actor.number, [request.key for request in await batch]
            alive.setdefault(number, []).extend(held)
            await asyncio.sleep(0.02)
            if killer in alive[number]:
                raise ActorDiedError()
            for key in held:
                alive[number].remove(key)
            return [Choice(key, (0.6, 0.4), 3, False) for key in held]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Actor, "__getattr__", lambda actor, method: Deadly(actor, method))
        answers, news = run(script, test, plan(engine="vllm"), tries=2, replica_failures=50)
    assert len(answers) == 17
    failed = [answer for answer in answers if answer.failure is not None]
    assert [(answer.key, answer.failure.retryable) for answer in failed] == [(killer, False)]
    assert "poison: alone in its batch" in failed[0].failure.reason
    # The batches together, the part with the row, and the row alone twice.
    assert len(news) == 3
    assert all(line.startswith("phi: a replica was lost: ") for line in news)


def test_replicas_are_closed_before_they_are_killed(run: Any) -> None:
    told: list[tuple[str, int]] = []

    async def script(method: str, number: int) -> Any:
        told.append((method, number))
        if method == "close" and number == 1:
            await asyncio.sleep(60)
        return "node"

    async def test(router: Router, replicas: Replicas) -> list[int]:
        await router.start()
        await router.stop()
        return sorted(replicas.killed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicas_module, "_CLOSE_S", 0.1)
        assert run(script, test, plan(minimum=2, maximum=2)) == [0, 1]
    assert {("close", 0), ("close", 1)} <= set(told)


def test_an_answer_that_is_none_costs_no_replica_its_place(run: Any) -> None:
    wrong = True

    async def script(method: str, number: int) -> Any:
        nonlocal wrong
        if method == "ready":
            return "node"
        answer, wrong = [3] if wrong else None, False
        return answer

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        with pytest.raises(AttributeError):
            await ask(router)
        assert (await ask(router))[0].failure is None
        assert replicas.killed == []

    run(script, test)


def test_the_others_go_on_without_a_pool_that_is_not_needed(run: Any) -> None:
    async def script(method: str, number: int) -> Any:
        raise raised(RuntimeError("no room"))

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        assert len(replicas.made) == 4, "as many tries as the settings allow"
        failure = (await ask(router))[0].failure
        assert failure.retryable
        assert "phi is down: RuntimeError: no room" in failure.reason
        assert any("the others go on without it" in line for line in (await router.glance())[0])

    run(script, test)


def test_who_asks_a_pool_that_is_needed_is_told_that_it_is_gone(run: Any) -> None:
    async def script(method: str, number: int) -> Any:
        if method == "ready":
            return "node"
        raise ActorDiedError()

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        with pytest.raises(PoolDown, match="phi is down: each of the last 2 rows that it was given alone ended"):
            await ask(router, 4)

    run(script, test, plan(needed=True), replica_failures=2)


def test_rows_that_kill_a_needed_pool_one_after_the_other_cost_themselves(run: Any) -> None:
    """Their replica is replaced each time: the pool is not gone, whatever the rows do."""

    async def script(method: str, number: int) -> Any:
        return "node" if method == "ready" else None

    class Deadly(Method):
        async def _run(self, batch: Batch | None) -> Any:
            if batch is None or self.name == "details":
                return "node" if batch is None else {}
            held = [request.key for request in await batch]
            if any(int(key[1:]) > 1 for key in held):
                raise ActorDiedError()
            return [Choice(key, (0.6, 0.4), 3, False) for key in held]

    async def test(router: Router, replicas: Replicas) -> list[Any]:
        await router.start()
        answers: list[Any] = await ask(router, 8)
        return answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Actor, "__getattr__", lambda actor, method: Deadly(actor, method))
        answers = run(script, test, plan(needed=True), replica_failures=3, tries=1)
    assert [answer.failure is None for answer in answers] == [True] * 2 + [False] * 6


def test_a_replica_that_is_lost_while_it_loads_with_its_node_is_no_failure(run: Any) -> None:
    async def script(method: str, number: int) -> Any:
        if method == "ready" and number < 4:
            raise NodeGone()
        return "node" if method == "ready" else None

    class NodeGone(ActorDiedError):
        def __str__(self) -> str:
            return "The actor died because its node has died. Node Id: 1f"

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        assert (await ask(router))[0].failure is None
        assert len(replicas.made) == 5

    run(script, test, plan(needed=True), replica_failures=2)


def test_a_node_that_vanishes_unseen_is_waited_for_before_a_row_is_blamed(run: Any) -> None:
    nodes = [{"NodeID": "node", "Alive": True}]

    async def script(method: str, number: int) -> Any:
        if method == "ready":
            return "node" if number == 0 else "other"
        if number == 0:
            asyncio.get_running_loop().call_later(0.1, nodes.clear)
            raise ActorUnavailableError("the connection was lost", None)
        return None

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ray, "nodes", lambda: nodes)
            patch.setattr(replicas_module, "_LOOK_S", 0.02)
            assert (await ask(router))[0].failure is None

    run(script, test, tries=1)


def test_a_replica_whose_node_will_be_taken_away_is_replaced_before_and_works_until_then(run: Any) -> None:
    draining: dict[str, float] = {}
    asked: list[int] = []

    async def script(method: str, number: int) -> Any:
        if method == "ready":
            return f"node{number}"
        if method == "choose":
            asked.append(number)
        return None

    async def test(router: Router, replicas: Replicas) -> None:
        await router.start()
        draining["node0"] = time.time() + pools._DRAIN_MARGIN_S + 0.4
        await asyncio.sleep(0.2)
        assert len(replicas.made) == 2, "nothing was started in its place"
        assert replicas.killed == []
        await asyncio.gather(*(ask(router) for _ in range(2)))
        assert 0 in asked, "it was given nothing more though there was time"
        await asyncio.sleep(0.5)
        assert replicas.killed == [0]
        del asked[:]
        await asyncio.gather(*(ask(router) for _ in range(3)))
        assert asked == [1, 1, 1]
        stats = (await router.stats())["phi"]
        assert (stats.ready, stats.deaths) == (1, 0)

    run(script, test, draining=draining)
