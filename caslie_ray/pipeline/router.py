"""Pools of model replicas, and the router that hands work to them.

Every model of a lineup has a pool of actors, each holding one engine. One router actor knows all pools: a stage sends
it a batch, it picks a free replica, and it is the one place where a dead, hanging or unstartable one is dealt with:

- A replica whose model fails to load is tried again as `caslie_ray.pipeline.load_policy` decides, a bounded number
  of times.
- A replica that dies or hangs is replaced, a bounded number of times in a row.
- The batch it held is cut into smaller ones and tried again. Only a row that was alone in its batch, and
  whose replica's node outlived it, counts a try; after the set number of tries the row is poison and gets
  a failure of its own. A lost node (a preemption) never counts.
- An engine that takes several batches at once is given them. What it held when it died is tried again on a
  replica that holds nothing else, so that no row pays for what another did.
- A replica on a node that is to be taken away is replaced as soon as that is announced, and used until shortly before.
- A pool whose replicas cannot be kept alive is down. Those who ask a pool that the job needs are told so by an
  exception; rows of any other get a retryable failure, until a replica answers again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from caslie_ray.cluster.connection import Connection
from caslie_ray.cluster.ray_internals import draining_nodes
from caslie_ray.engines import Choice, Failure, Generation, Request
from caslie_ray.engines.load_errors import at_fault, classify
from caslie_ray.errors import PoolDown
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.pipeline.load_policy import Attempt, LoadPolicy, nodes_with_room
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.replicas import (
    Held,
    PoolState,
    Replica,
    add_details,
    cause_of,
    close_replica,
    details_of,
    first_line,
    node_died,
    node_lost,
    out_of_memory,
)
from caslie_ray.profiles.faults import FaultSettings

__all__ = ["Router", "actor_class", "start_router"]

log = logging.getLogger(__name__)

_SHRINK = 8
_NEWS = 100
_DRAIN_EVERY_S = 2.0
# Before its node is taken away a replica is given no more work; a batch may take that long.
_DRAIN_MARGIN_S = 20.0
_NEWS_EVERY_S = 1.0
# How long a pool without replicas waits for a node before another pool's replica is retired for it.
_ROOM_S = 60.0
# How long another GPU is waited for after one failed; it may be the only one.
_OTHER_GPU_S = 30.0


class Router:
    """Hands batches to replicas; see the module's docstring. Runs as one asynchronous Ray actor."""

    def __init__(self, plans: Sequence[PoolPlan], faults: FaultSettings, grows: bool = False) -> None:
        self._faults = faults
        self._pools = {
            plan.key: PoolState(
                plan, PoolStats(plan.name), LoadPolicy(faults.load_tries, faults.load_pause_s, grows=grows)
            )
            for plan in plans
        }
        self._news: list[str] = []
        self._drains: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Create the replicas and return once each pool has its minimum.

        The rest of them start after that: what they take must not be missing for another pool's minimum.

        Raises:
            PoolDown: a model that is needed cannot be loaded, or its replicas find no room in time.
        """
        for pool in self._pools.values():
            for _ in range(pool.plan.minimum):
                self._launch(pool)
        self._drains = asyncio.ensure_future(self._follow_drains())
        await asyncio.gather(*(self._wait_for_minimum(pool) for pool in self._pools.values()))
        # The first pool may take all that is left: see `size_pools`.
        for pool in reversed(self._pools.values()):
            for _ in range(pool.plan.limit - pool.plan.minimum):
                self._launch(pool)

    async def generate(self, pool: str, refs: list[ray.ObjectRef[list[Request]]], rows: int) -> list[Generation]:
        """Answer a batch of requests, in order, one result a request.

        Args:
            pool: key of the pool.
            refs: a list that holds the one reference to the batch, so that its images do not pass here.
            rows: how many requests the batch holds.
        """
        results = await self._solve(self._pools[pool], "generate", refs[0], rows, ())
        return [Generation(r[0], "", 0, 0, False, r[1]) if isinstance(r, tuple) else r for r in results]

    async def choose(
        self, pool: str, refs: list[ray.ObjectRef[list[Request]]], rows: int, choices: Sequence[str]
    ) -> list[Choice]:
        """Like `generate`, for a choice."""
        results = await self._solve(self._pools[pool], "choose", refs[0], rows, (tuple(choices),))
        return [Choice(r[0], (), 0, False, r[1]) if isinstance(r, tuple) else r for r in results]

    async def stats(self) -> dict[str, PoolStats]:
        """Return what each pool has done."""
        for pool in self._pools.values():
            pool.stats.details = add_details(await asyncio.gather(*map(details_of, pool.held)))
        return {key: pool.stats for key, pool in self._pools.items()}

    async def glance(self) -> tuple[list[str], list[tuple[PoolStats, int]]]:
        """Return why replicas were lost since this was last asked, and each pool's figures and greatest size."""
        news, self._news = self._news, []
        return news, [(pool.stats, pool.plan.limit) for pool in self._pools.values()]

    async def stop(self) -> None:
        """End all replicas, and what their engines have started."""
        await asyncio.gather(*(close_replica(held) for pool in self._pools.values() for held in pool.held))

    def _launch(self, pool: PoolState) -> None:
        self._hear(pool)
        start = asyncio.ensure_future(self._start_replica(pool))
        pool.starts.add(start)
        start.add_done_callback(pool.starts.discard)
        start.add_done_callback(pool.placed.discard)

    async def _start_replica(self, pool: PoolState) -> None:
        """Start a replica, load its model, and admit it; try again as the pool's `LoadPolicy` says."""
        this = asyncio.current_task()
        assert this is not None
        attempt: Attempt | None = Attempt()
        blocker: Any = None  # a replica that failed through its GPU: while it lives, Ray gives the next one another
        try:
            while attempt is not None:
                while pause := pool.loading.delay_s():
                    self._hear(pool, pause)
                    await asyncio.sleep(pause)
                self._hear(pool)
                begun = time.monotonic()
                nodes = await self._nodes_for(pool) if pool.loading.refusals else {}
                avoid = pool.loading.avoided(attempt, nodes)
                actor = self._new_replica(pool.plan, avoid)
                # Another node, or another GPU, may have no room or never come: that is not waited for without end.
                limit = self._faults.start_timeout_s / 2 if avoid else _OTHER_GPU_S if blocker is not None else None
                node = None
                try:
                    node = await asyncio.wait_for(actor.node.remote(), limit)
                    pool.placed.add(this)
                    self._hear(pool)
                    if blocker is not None:
                        ray.kill(blocker)
                        blocker = None
                    held = Held(actor, await actor.ready.remote(), pool.plan.slots)
                except asyncio.CancelledError:  # its room is needed: see `_make_room`
                    ray.kill(actor)
                    raise
                except RayError as error:
                    pool.placed.discard(this)
                    attempt = await self._after_failed_load(pool, attempt, node, error)
                    if pool.plan.gpus >= 1 and isinstance(error, RayTaskError) and at_fault(error.cause):
                        blocker = actor
                    else:
                        ray.kill(actor)
                except TimeoutError:
                    ray.kill(actor)
                    if avoid:
                        self._tell(pool, "a replica found no room on another node in time: any node will do")
                        attempt = pool.loading.nowhere_else(attempt)
                    elif blocker is not None:
                        ray.kill(blocker)
                        blocker = None
                else:
                    await self._admit(pool, held, time.monotonic() - begun)
                    return
            await self._give_up(pool)
        finally:
            if blocker is not None:
                ray.kill(blocker)

    def _new_replica(self, plan: PoolPlan, avoid: Collection[str]) -> Any:
        options: dict[str, Any] = {"num_cpus": plan.cpus, "num_gpus": plan.gpus}
        if plan.memory_gib:
            options["memory"] = int(plan.memory_gib * 2**30)
        if plan.slots > 1:
            options["max_concurrency"] = plan.slots + 1  # and a question how it fares
        if avoid:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"}
        return actor_class(Replica, **options, max_restarts=0, max_task_retries=0).remote(plan.spec)

    async def _nodes_for(self, pool: PoolState) -> dict[str, str]:
        """Return the addresses of the nodes that are large enough for a replica, by id."""
        return nodes_with_room(await asyncio.to_thread(ray.nodes), pool.plan.needs)

    async def _admit(self, pool: PoolState, held: Held, seconds: float) -> None:
        this = asyncio.current_task()
        assert this is not None
        self._hear(pool)
        async with pool.changed:
            pool.starts.discard(this)
            pool.stats.load_s = max(pool.stats.load_s, seconds)
            pool.admitted += 1
            pool.held.append(held)
            pool.stats.ready = pool.alive
            pool.changed.notify_all()

    async def _after_failed_load(
        self, pool: PoolState, attempt: Attempt, node: str | None, error: RayError
    ) -> Attempt | None:
        """Return the next try of a replica that failed to load; None where it is given up."""
        pool.stats.deaths += 1
        self._hear(pool)
        if isinstance(error, RayTaskError):
            failure = classify(error.cause)
            decision = pool.loading.after(attempt, failure, node, await self._nodes_for(pool))
            pool.trouble = str(failure)
            for message in decision.messages:
                self._tell(pool, message)
            return decision.attempt
        # Its process ended without an exception.
        gone = node_died(error) if node is None else await node_lost(node, error)
        pool.failures += not gone
        pool.trouble = f"{pool.failures} replicas died while they started: {first_line(error)}"
        self._tell(pool, f"a replica died while it started: {first_line(error)}")
        return attempt if pool.failures < self._faults.replica_failures else None

    async def _give_up(self, pool: PoolState) -> None:
        """Note that a replica will not be started."""
        this = asyncio.current_task()
        assert this is not None
        async with pool.changed:
            pool.starts.discard(this)
            if pool.alive == 0 and not pool.starts:
                pool.stats.down = pool.trouble
            pool.changed.notify_all()

    def _hear(self, pool: PoolState, pause_s: float = 0.0) -> None:
        """Note a sign that replicas are being started, or a pause before they are."""
        pool.heard = max(pool.heard, time.monotonic() + pause_s)

    async def _wait_for_minimum(self, pool: PoolState) -> None:
        plan = pool.plan

        def settled() -> bool:
            hopeless = plan.needed and pool.alive + len(pool.starts) < plan.minimum
            return pool.alive >= plan.minimum or pool.stats.down is not None or hopeless or not pool.starts

        async with pool.changed:
            while not settled():
                rest = pool.heard + self._faults.start_timeout_s - time.monotonic()
                if rest > 0:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(pool.changed.wait(), rest)
                    continue
                why = (
                    f"{plan.name}: {pool.alive} of {plan.minimum} replicas were ready after"
                    f" {self._faults.start_timeout_s:g} s; {self._start_advice(pool)}{self._last_trouble(pool)}"
                )
                if plan.needed:
                    raise PoolDown(why)
                if pool.alive == 0:
                    pool.stats.down = why
                return
        if pool.alive >= plan.minimum:
            return
        why = f"{plan.name} ({plan.spec.checkpoint}) cannot be started: {pool.trouble}"
        if plan.needed:
            raise PoolDown(why)
        rest_of_it = f"with {pool.alive} of {plan.minimum} replicas" if pool.alive else "the others go on without it"
        self._tell(pool, f"{rest_of_it}: {pool.trouble}")

    def _start_advice(self, pool: PoolState) -> str:
        """What helps where replicas were not ready in time."""
        if pool.placed:
            return "a replica is still loading: raise faults.start_timeout_s"
        plan = pool.plan
        need = f"each needs {plan.cpus:g} CPUs, {plan.gpus:g} GPUs and {plan.memory_gib:g} GiB"
        staged = ", or set schedule=staged, so that one model runs at a time" if len(self._pools) > 1 else ""
        return f"{need}. Give the cluster more{staged}"

    @staticmethod
    def _last_trouble(pool: PoolState) -> str:
        return f". The last failure: {pool.trouble}" if pool.trouble else ""

    async def _acquire(self, pool: PoolState, method: str, alone: bool) -> Held:
        """A replica with room for a batch; for one that goes alone, a replica that holds nothing else."""
        async with pool.changed:
            while True:
                await pool.changed.wait_for(lambda: pool.open() or pool.stats.down is not None)
                if not pool.open():
                    raise PoolDown(f"{pool.plan.name} is down: {pool.stats.down}")
                held = min(pool.open(), key=lambda one: one.calls)
                if alone:
                    held.alone = True
                    try:
                        await pool.changed.wait_for(functools.partial(Held.idle, held))
                    except BaseException:  # the asker is gone: others may have the replica
                        held.alone = False
                        pool.changed.notify_all()
                        raise
                if not held.lost:
                    held.begin(method, pool.stats)
                    return held

    async def _release(self, pool: PoolState, held: Held, method: str, alone: bool) -> None:
        async with pool.changed:
            held.end(method, pool.stats)
            held.alone = held.alone and not alone
            pool.changed.notify_all()

    async def _lost(self, pool: PoolState, held: Held, blamed: bool, why: str) -> None:
        if held.lost:  # another batch that it held has told
            return
        held.lost = True
        ray.kill(held.actor)
        self._tell(pool, f"a replica was lost: {why}")
        self._hear(pool)
        async with pool.changed:
            pool.held.remove(held)
            pool.stats.ready = pool.alive
            pool.stats.deaths += 1
            pool.failures += blamed
            if pool.failures < self._faults.replica_failures:
                if held.until is None:  # else its place was filled when that was announced
                    self._launch(pool)
            elif pool.alive == 0 and not pool.starts:
                pool.stats.down = f"{pool.failures} replicas died in a row, the last: {why}"
            self._watch_over(pool)
            pool.changed.notify_all()

    def _watch_over(self, pool: PoolState) -> None:
        """See to it that a pool that lost its last replica gets another one, or is given up in time."""
        if pool.alive or pool.stats.down is not None or pool.watched == pool.admitted:
            return
        pool.watched = pool.admitted
        for coroutine in (self._watch(pool, pool.admitted), self._make_room(pool, pool.admitted)):
            watch = asyncio.ensure_future(coroutine)
            pool.watches.add(watch)
            watch.add_done_callback(pool.watches.discard)

    async def _make_room(self, short: PoolState, admitted: int) -> None:
        """Take replicas beyond their minimum from other pools until a pool that lost its last one has one again.

        Those that are still pending go first, since they are ahead of it in the queue. Then one at a time is retired:
        of the pool whose replicas take most GPUs. A pool whose next replica has a node, and loads, has room.
        """
        others = [pool for pool in self._pools.values() if pool is not short]
        taken: Counter[str] = Counter()
        while short.admitted == admitted and short.stats.down is None:
            for pool in others:
                spare = max(0, pool.alive + len(pool.starts) - pool.plan.minimum) if not short.placed else 0
                pending = list(pool.starts - pool.placed)[:spare]
                for start in pending:
                    start.cancel()
                taken[pool.plan.key] += len(pending)
            await asyncio.sleep(_ROOM_S)
            rich = [pool for pool in others if pool.alive > pool.plan.minimum]
            if short.admitted == admitted and not short.placed and rich:
                pool = max(rich, key=lambda pool: pool.plan.gpus)
                async with pool.changed:
                    free = [held for held in pool.held if held.until is None]
                    if len(free) > pool.plan.minimum:
                        min(free, key=lambda held: held.calls).until = time.time()
                        taken[pool.plan.key] += 1
                        self._tell(pool, f"a replica is retired: {short.plan.name} has none, and needs its room")
        for pool in others:
            for _ in range(taken[pool.plan.key]):
                self._launch(pool)

    async def _watch(self, pool: PoolState, admitted: int) -> None:
        """Do not let rows wait without end for a replica that finds no room any more."""
        while (rest := pool.heard + self._faults.start_timeout_s - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        async with pool.changed:
            if pool.admitted == admitted:
                limit = self._faults.start_timeout_s
                trouble = self._last_trouble(pool)
                pool.stats.down = f"its replicas are lost, and none started in {limit:g} s{trouble}"
                pool.changed.notify_all()

    async def _follow_drains(self) -> None:
        """Fill the places of replicas on nodes that are announced to be taken away, and let these go in time."""
        while True:
            await asyncio.sleep(_DRAIN_EVERY_S)
            nodes = await asyncio.to_thread(draining_nodes)
            for pool in self._pools.values():
                await self._leave(pool, nodes)

    async def _leave(self, pool: PoolState, nodes: Mapping[str, float]) -> None:
        now = time.time()
        async with pool.changed:
            for held in pool.held:
                if held.until is None and held.node in nodes:
                    held.until = max(now, nodes[held.node] - _DRAIN_MARGIN_S)
                    self._tell(pool, "its node will be taken away: another replica is being started")
                    self._launch(pool)
            gone = [held for held in pool.held if held.until is not None and held.until <= now and not held.calls]
            for held in gone:
                held.lost = True
                pool.held.remove(held)
            pool.stats.ready = pool.alive
            if gone:
                self._hear(pool)
                self._watch_over(pool)
            pool.changed.notify_all()
        await asyncio.gather(*map(close_replica, gone))

    async def _solve(
        self,
        pool: PoolState,
        method: str,
        batch: ray.ObjectRef[list[Request]],
        rows: int,
        extra: tuple[Any, ...],
        alone: bool = False,
    ) -> list[Any]:
        """Return one result a row; a row without an answer is a pair of its key and a Failure."""
        alone = alone or pool.plan.slots == 1
        tries = 0
        while True:
            try:
                held = await self._acquire(pool, method, alone)
            except PoolDown as down:
                if pool.plan.needed:
                    raise
                return [(request.key, Failure(str(down), retryable=True)) for request in await batch]
            # A batch that shares its replica waits for the others too.
            patience = self._faults.call_timeout_s * (1 if alone else held.slots)
            try:
                call = getattr(held.actor, method).remote(batch, *extra)
                results: list[Any] = await asyncio.wait_for(call, patience)
                self._count(pool, results)
                if pool.proof is None:
                    pool.proof = method, ray.put((await batch)[:1]), extra
                return results
            except (RayError, TimeoutError) as error:
                if isinstance(getattr(error, "cause", error), ObjectLostError):  # the asker ended, and its batch
                    raise
                held.slots = 0  # nobody else is to be given it while its node is looked for
                blamed = held.until is None and not await node_lost(held.node, error)
                await self._lost(pool, held, blamed and not (alone and rows == 1), self._why(error))
                failed = error
            finally:
                await self._release(pool, held, method, alone)
            if not blamed:
                continue
            if rows > 1:
                return await self._split(pool, method, await batch, extra)
            tries += alone
            alone = True
            if tries >= self._faults.tries:
                key = (await batch)[0].key
                return [(key, await self._poison(pool, tries, failed))]

    async def _split(self, pool: PoolState, method: str, requests: list[Request], extra: tuple[Any, ...]) -> list[Any]:
        size = max(1, len(requests) // _SHRINK)
        answers: list[Any] = []
        for at in range(0, len(requests), size):
            part = requests[at : at + size]
            answers += await self._solve(pool, method, ray.put(part), len(part), extra, alone=True)
        return answers

    async def _poison(self, pool: PoolState, tries: int, error: Exception) -> Failure:
        pool.poisoned += 1
        how = self._why(error) if isinstance(error, TimeoutError) else f"ended its process ({self._why(error)})"
        if pool.poisoned >= self._faults.replica_failures:
            if await self._answers(pool):
                pool.poisoned = 1
            else:
                why = f"each of the last {pool.poisoned} rows that it was given alone {how}"
                async with pool.changed:
                    pool.failures = self._faults.replica_failures
                    pool.stats.down = why
                    pool.changed.notify_all()
                if pool.plan.needed:
                    raise PoolDown(f"{pool.plan.name} is down: {why}")
        often = "once" if tries == 1 else f"{tries} times"
        reason = f"alone in its batch, it {how} {often} on {pool.plan.name}"
        # Time and memory may suffice later, and a second row without a success in between may be the pool's fault.
        passing = isinstance(error, TimeoutError) or out_of_memory(error) or pool.poisoned > 1
        return Failure(reason if passing else f"poison: {reason}", retryable=passing)

    async def _answers(self, pool: PoolState) -> bool:
        """Whether it still answers what it has answered before: then rows are at fault, and not the pool."""
        if pool.proof is None:
            return False
        method, batch, extra = pool.proof
        held = await self._acquire(pool, method, alone=True)
        try:
            await asyncio.wait_for(getattr(held.actor, method).remote(batch, *extra), self._faults.call_timeout_s)
        except (RayError, TimeoutError) as error:
            await self._lost(pool, held, blamed=True, why=self._why(error))
            return False
        finally:
            await self._release(pool, held, method, alone=True)
        return True

    def _why(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"gave no answer in {self._faults.call_timeout_s:g} s"
        return cause_of(error) or first_line(error)

    def _tell(self, pool: PoolState, what: str) -> None:
        self._news = [*self._news, f"{pool.plan.name}: {what}"][-_NEWS:]

    def _count(self, pool: PoolState, results: Sequence[Generation | Choice]) -> None:
        pool.failures = pool.poisoned = 0
        stats = pool.stats
        stats.down = None
        stats.calls += 1
        stats.requests += len(results)
        stats.prompt_tokens += sum(result.prompt_tokens for result in results)
        stats.new_tokens += sum(result.new_tokens for result in results if isinstance(result, Generation))


def actor_class(cls: type, **options: Any) -> Any:
    """Return `cls` as an actor class with these options."""
    return ray.remote(**options)(cls)


def start_router(plans: Sequence[PoolPlan], faults: FaultSettings, connection: Connection) -> Any:
    """Start the router and its pools; return its handle. Replicas end with it.

    Args:
        plans: the pools, with their sizes.
        faults: what is done about replicas that fail.
        connection: how this process is connected to Ray.

    Raises:
        PoolDown: a model cannot be loaded, or finds no room.
    """
    # The job ends with its driver anyway; beside it the router outlives the loss of every other node.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    router = actor_class(Router, num_cpus=0, max_restarts=0, max_concurrency=10_000, scheduling_strategy=here).remote(
        list(plans), faults, connection.joined
    )
    try:
        started = router.start.remote()
        while not ray.wait([started], timeout=_NEWS_EVERY_S)[0]:
            _log_news(router)
        ray.get(started)
    except BaseException as error:
        if isinstance(error, Exception):  # an interrupt does not wait for news
            _log_news(router)
        ray.kill(router)
        cause = getattr(error, "cause", None)
        if isinstance(cause, PoolDown):
            raise PoolDown(str(cause)) from None
        raise
    return router


def _log_news(router: Any) -> None:
    """Log what the router reports while models load: nobody else looks at it before they are loaded."""
    with suppress(RayError):
        for line in ray.get(router.glance.remote(), timeout=_NEWS_EVERY_S)[0]:
            log.warning("%s", line)
