"""The actor that sees all replicas of a chain: counters, losses, nodes about to go, and models that are down.

Ray Data starts, replaces and feeds the replicas. It does not know why a model cannot be loaded, whether a job goes on
without it, or what a replica computed. Replicas report that here, and the driver reads it here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from caslie_ray.cluster.ray_internals import draining_nodes
from caslie_ray.engines.load_errors import LoadFailure
from caslie_ray.monitoring.pool_stats import PoolStats, add_details
from caslie_ray.pipeline.load_policy import Attempt, LoadPolicy, nodes_with_room
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.pool_state import Counts, Orders, Pool, PoolView, Replica
from caslie_ray.profiles.faults import FaultSettings

__all__ = ["Monitor", "start_monitor"]

_MESSAGES = 100
_DRAINS_EVERY_S = 2.0


class Monitor:
    """Collects reports of replicas; see the module's docstring. Runs as one Ray actor on the driver's node.

    Args:
        plans: the pools.
        faults: limits on waiting and on failures.
        grows: whether nodes may join the cluster.
        silent_s: seconds without a report after which a replica no longer counts as ready.
        stuck_s: seconds for which all replicas may be idle while others are lost.
    """

    def __init__(
        self,
        plans: Sequence[PoolPlan],
        faults: FaultSettings,
        grows: bool = False,
        silent_s: float = 15.0,
        stuck_s: float = 20.0,
    ) -> None:
        self._faults = faults
        self._silent_s = silent_s
        self._stuck_s = stuck_s
        self._pools = {
            plan.key: Pool(plan, PoolStats(plan.name), LoadPolicy(faults.load_tries, faults.load_pause_s, grows=grows))
            for plan in plans
        }
        self._messages: list[str] = []
        self._chain = 0
        self._moved = time.monotonic()
        self._draining: dict[str, float] = {}
        self._drains_read = 0.0

    def begin(self) -> int:
        """Note that a chain begins, with replicas of its own; return its number."""
        self._chain += 1
        for one in self._pools.values():
            one.silent.update(one.replicas)
            one.replicas.clear()
            one.lost.clear()
            for replica in one.silent.values():
                replica.former = True
            one.heard = time.monotonic()
        return self._chain

    def started(self, pool: str, replica: str, node: str, chain: int | None = None) -> str | None:
        """Register a replica of a chain that starts to load; return why its pool is down, if it is."""
        one = self._pools[pool]
        one.heard = time.monotonic()
        one.lost.discard(replica)
        before = one.replicas.pop(replica, None) or one.silent.pop(replica, None)
        if before is not None:
            self._lost(one, before, "its process ended")
        if chain is not None and chain < self._chain:
            one.silent[replica] = Replica(node, time.monotonic(), former=True)
        else:
            one.replicas[replica] = Replica(node, time.monotonic())
        return one.stats.down

    def load_failed(
        self, pool: str, replica: str, attempt: Attempt, failure: LoadFailure
    ) -> tuple[Attempt | None, bool]:
        """Return the next try of a replica whose model failed to load, and whether it is made on another node."""
        one = self._pools[pool]
        one.heard = time.monotonic()
        one.stats.deaths += 1
        state = one.known(replica)
        assert state is not None
        nodes = nodes_with_room(ray.nodes(), one.plan.needs)
        attempt = replace(attempt, number=max(attempt.number, one.moves + 1))
        decision = one.policy.after(attempt, failure, state.node, nodes)
        one.trouble = str(failure)
        for message in decision.messages:
            self._say(one, message)
        if decision.attempt is None:
            state.failed = True
            self._give_up(one)
            return None, False
        return decision.attempt, state.node in one.policy.avoided(decision.attempt, nodes)

    def pause_s(self, pool: str) -> float:
        """Return for how long a replica of the pool waits before it loads its model."""
        one = self._pools[pool]
        pause = one.policy.delay_s()
        one.heard = max(one.heard, time.monotonic() + pause)
        return pause

    def moved(self, pool: str, replica: str) -> None:
        """Forget a replica that makes room for one on another node."""
        one = self._pools[pool]
        one.moves += 1
        one.replicas.pop(replica, None)

    def loaded(self, pool: str, replica: str, seconds: float) -> None:
        """Note that a replica is ready."""
        one = self._pools[pool]
        one.heard = time.monotonic()
        one.moves = 0
        one.stats.down = one.error = None
        one.stats.load_s = max(one.stats.load_s, seconds)
        if (state := one.known(replica)) is not None:
            state.ready = True

    def report(
        self,
        pool: str,
        replica: str,
        counts: Counts,
        details: Mapping[str, float],
        messages: Sequence[str] = (),
        blocks: int = 0,
    ) -> Orders:
        """Take the counters of a replica, which replace its earlier ones, what happened to its engine, and how many
        blocks it works on."""
        one = self._pools[pool]
        for message in messages:
            self._say(one, message)
        if (state := one.known(replica)) is None:
            return Orders(one.stats.down)
        counts = Counts(
            *cast(Any, map(max, counts, state.counts))
        )  # reports of several threads may arrive in another order
        one.add(counts, state.counts)
        state.counts, state.details, state.blocks = counts, details, blocks
        leave = state.node in self._drains() and not state.leaving
        if leave:
            state.leaving = True
            self._say(one, "its node will be taken away: another replica is being started")
        return Orders(one.stats.down, leave, state.former)

    def fail(self, pool: str, replica: str, why: str) -> bool:
        """Note that a replica's engine fails on whatever it is asked; return whether its pool is down.

        Where the pool has answered anything since the last failure, the replica is to start again, on another node if
        others work there.
        """
        one = self._pools[pool]
        answered, one.answered = one.answered, one.stats.requests
        if one.answered <= answered:
            self._set_down(one, why, f"{one.plan.name} is down: {why}")
            return True
        state = one.replicas.get(replica)
        if state is not None and any(other.ready and other.node != state.node for other in one.replicas.values()):
            one.policy.refusals[state.node] = one.policy.refusals.get(state.node, 0) + 1
        self._say(one, f"a replica is started again: {why}")
        return False

    def quick_status(self) -> tuple[list[str], list[PoolView]]:
        """Return what happened since the last call, and the state of each pool."""
        self._look()
        messages, self._messages = self._messages, []
        return messages, [self._view(one) for one in self._pools.values()]

    def stats(self) -> dict[str, PoolStats]:
        """Return the counters of each pool, by key."""
        self._look()
        for one in self._pools.values():
            one.stats.details = add_details(
                replica.details for replica in (*one.replicas.values(), *one.silent.values())
            )
        return {key: one.stats for key, one in self._pools.items()}

    def _view(self, one: Pool) -> PoolView:
        nodes = nodes_with_room(ray.nodes(), one.plan.needs) if one.policy.refusals else {}
        avoid = one.policy.avoided(Attempt(avoid=frozenset(one.policy.refusals)), nodes) if nodes else frozenset()
        stuck = bool(one.lost) and time.monotonic() - self._moved > self._stuck_s
        return PoolView(one.stats, one.plan.limit, one.plan.needed, avoid, one.error, not one.replicas, stuck)

    def _look(self) -> None:
        """Find replicas that are gone, and pools that have none for too long."""
        now = time.monotonic()
        alive: set[str] | None = None
        for one in self._pools.values():
            for name, replica in list(one.replicas.items()):
                if now - replica.seen < min(2.0, self._silent_s):
                    continue
                if alive is None:
                    alive = {info["NodeID"] for info in ray.nodes() if info["Alive"]}
                if replica.node not in alive:
                    one.lost.add(name)
                    self._lost(one, one.replicas.pop(name), "its node was lost")
                elif now - replica.seen > self._silent_s:
                    self._silence(one, name)
            one.stats.ready = sum(replica.ready for replica in one.replicas.values())
            overdue = now - one.heard > self._faults.start_timeout_s
            if not one.stats.ready and overdue and one.stats.down is None:
                self._overdue(one)
        pools = self._pools.values()
        if not any(one.lost for one in pools) or not all(one.is_idle for one in pools):
            self._moved = now

    def _silence(self, one: Pool, name: str) -> None:
        """Ray Data has released a replica, as it does when a stage has no more input; or it was lost and starts again.

        In the second case it registers again and is counted then.
        """
        replica = one.silent[name] = one.replicas.pop(name)
        if replica.blocks or replica.leaving:
            one.lost.add(name)
        if replica.ready and not any(other.ready for other in one.replicas.values()):
            one.heard = math.inf

    def _overdue(self, one: Pool) -> None:
        if one.policy.grows and one.policy.refusals:
            one.policy.nowhere_else(Attempt())
            one.heard = time.monotonic()
            self._say(one, "a replica found no room on another node in time: any node will do")
            return
        why = self._not_started(one)
        self._set_down(one, why, f"{one.plan.name}: {why}")

    def _lost(self, one: Pool, replica: Replica, why: str) -> None:
        one.heard = time.monotonic()
        if replica.ready and not replica.leaving:
            one.stats.deaths += 1
            self._say(one, f"a replica was lost: {why}")

    def _not_started(self, one: Pool) -> str:
        limit = self._faults.start_timeout_s
        last = f". The last failure: {one.trouble}" if one.trouble else ""
        if any(not replica.failed for replica in one.replicas.values()):
            advice = "a replica is still loading: raise faults.start_timeout_s"
        else:
            plan = one.plan
            staged = ", or set schedule=staged, so that one model runs at a time" if len(self._pools) > 1 else ""
            need = f"each needs {plan.cpus:g} CPUs, {plan.gpus:g} GPUs and {plan.memory_gib:g} GiB"
            advice = f"{need}. Give the cluster more{staged}"
        return f"0 of {one.plan.minimum} replicas were ready after {limit:g} s; {advice}{last}"

    def _give_up(self, one: Pool) -> None:
        """A pool is down once every replica that was started failed for good."""
        if all(replica.failed for replica in one.replicas.values()):
            plan = one.plan
            self._set_down(one, one.trouble, f"{plan.name} ({plan.spec.checkpoint}) cannot be started: {one.trouble}")
            if not plan.needed:
                self._say(one, f"the others go on without it: {one.trouble}")

    @staticmethod
    def _set_down(one: Pool, why: str, error: str) -> None:
        one.stats.down, one.error = why, error

    def _drains(self) -> Mapping[str, float]:
        if time.monotonic() - self._drains_read > _DRAINS_EVERY_S:
            self._draining = draining_nodes()
            self._drains_read = time.monotonic()
        return self._draining

    def _say(self, one: Pool, what: str) -> None:
        self._messages = [*self._messages, f"{one.plan.name}: {what}"][-_MESSAGES:]


def start_monitor(plans: Sequence[PoolPlan], faults: FaultSettings, *, grows: bool) -> Any:
    """Start the monitor of a chain on the driver's node; return its actor handle.

    Args:
        plans: the pools, with their sizes.
        faults: limits on waiting and on failures.
        grows: whether nodes may join the cluster.
    """
    # The job ends with its driver anyway; on the same node the monitor survives the loss of any other.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Monitor)
    return actor.options(num_cpus=0, max_restarts=0, max_concurrency=1, scheduling_strategy=here).remote(
        list(plans), faults, grows
    )
