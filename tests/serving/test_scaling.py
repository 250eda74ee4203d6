"""More requests than a replica can answer: a full queue is refused, and more replicas are started."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from ray import serve

from caslie_ray.profiles import load_profile
from caslie_ray.serving.application import APPLICATION, application, plan_pinned
from tests.clusters import until

pytestmark = pytest.mark.timeout(300)

# A base that takes two seconds for each request.
SLOW = [
    "captions.source=dataset",
    "votes.rule=never",
    "lineup.base.engine=tests.faulty:very_slow",
    "lineup.base.batch_size=1",
    "lineup.base.resources.cpus=0.1",
]


def deploy(url: str, *settings: str) -> None:
    plan = plan_pinned(load_profile("mini", [*SLOW, *settings]), None)
    serve.run(application(plan, loopback=True), name=APPLICATION, route_prefix="/")
    until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 120)


def ask(url: str, number: int) -> httpx.Response:
    asked = {"model": "base", "messages": [{"role": "user", "content": f"Is {number} a number?"}]}
    return httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=120)


def test_requests_beyond_the_queue_are_refused_with_the_time_to_wait(url: str) -> None:
    deploy(url, "serving.queue=2")
    with ThreadPoolExecutor(10) as threads:
        responses = list(threads.map(lambda number: ask(url, number), range(10)))
    statuses = [response.status_code for response in responses]
    assert set(statuses) == {200, 429}
    assert all(int(response.headers["Retry-After"]) >= 1 for response in responses if response.status_code == 429)
    assert ask(url, 99).status_code == 200


def test_a_second_replica_is_started_under_load(url: str) -> None:
    deploy(url, "lineup.base.pool={min: 1, max: 2}")
    stopped = threading.Event()
    statuses: set[int] = set()

    def load(client: int) -> None:
        while not stopped.is_set():
            statuses.add(ask(url, client).status_code)

    def replicas() -> int:
        states = serve.status().applications[APPLICATION].deployments["unim3"].replica_states
        return sum(count for state, count in states.items() if state == "RUNNING")

    assert replicas() == 1
    with ThreadPoolExecutor(6) as threads:
        for client in range(6):
            threads.submit(load, client)
        try:
            until(lambda: replicas() == 2, 150)
        finally:
            stopped.set()
    assert statuses == {200}
