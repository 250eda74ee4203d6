"""A model's replicas on Serve, called by handles: shared calls, cancellation, and impossible choices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from ray import serve
from ray.serve.exceptions import RequestCancelledError

from caslie_ray.engines import EngineSpec, Request
from caslie_ray.engines.process import Counters, ProcessLimits
from caslie_ray.prompts import Prompt
from caslie_ray.serving._model import ModelReplica

CHOICES = ("yes", "no")


class Probe(ModelReplica):
    """A replica that shows its counters."""

    async def counters(self) -> tuple[Counters, int | None]:
        return self._engine.counters, self._engine.pid


@pytest.fixture(autouse=True)
def _serve(ray_cluster: None) -> Iterator[None]:
    serve.start(http_options={"location": "NoServer"})
    yield
    serve.shutdown()


def deploy(checkpoint: str = "miniature:voter-llama-3b", *, needed: bool = True, **settings: Any) -> Any:
    spec = EngineSpec(checkpoint, **{"engine": "tests.faulty:slow", "batch_size": 1, **settings})
    deployment = serve.deployment(name="voter", ray_actor_options={"num_cpus": 0.2}, max_ongoing_requests=20)(Probe)
    bound = deployment.bind("voter", spec, {"voter": "f1"}, ProcessLimits(load_tries=1), 1, 0.05, needed)
    return serve.run(bound, name="voter", route_prefix=None)


def request(number: int) -> Request:
    return Request(str(number), Prompt(f"Is {number} a number? Only output yes or no."))


def test_requests_that_wait_at_the_same_time_share_a_call() -> None:
    handle = deploy(batch_size=8)
    asked = [handle.choose.remote(request(number), CHOICES) for number in range(9)]
    answers = [one.result(timeout_s=60) for one in asked]
    assert [answer.result.key for answer in answers] == [str(number) for number in range(9)]
    assert {tuple(answer.fingerprints.items()) for answer in answers} == {(("voter", "f1"),)}
    counters, _ = handle.counters.remote().result()
    assert counters.requests == 9
    assert counters.calls <= 4


def test_a_cancelled_request_leaves_its_place() -> None:
    handle = deploy(engine="tests.faulty:very_slow")
    asked = [handle.choose.remote(request(0), CHOICES)]
    time.sleep(0.7)  # it is computed for two seconds, and the others wait
    asked += [handle.choose.remote(request(number), CHOICES) for number in (1, 2)]
    time.sleep(0.5)
    asked[1].cancel()
    assert [asked[number].result(timeout_s=60).result.key for number in (0, 2)] == ["0", "2"]
    with pytest.raises(RequestCancelledError):
        asked[1].result(timeout_s=60)
    counters, _ = handle.counters.remote().result()
    assert counters.requests == 2


def test_choices_without_first_tokens_of_their_own_are_a_failure_and_end_nothing() -> None:
    handle = deploy(engine="transformers")
    _, pid = handle.counters.remote().result()
    answer = handle.choose.remote(request(1), ("also buy", "also view")).result().result
    assert not answer.failure.retryable
    assert "has no first token of its own" in answer.failure.reason
    assert handle.choose.remote(request(1), CHOICES).result().result.failure is None
    assert handle.counters.remote().result()[1] == pid


def test_an_optional_model_that_cannot_be_loaded_answers_with_failures() -> None:
    handle = deploy("/no/such/folder", needed=False, engine="transformers")
    failure = handle.choose.remote(request(1), CHOICES).result().result.failure
    assert "/no/such/folder" in failure.reason
    assert failure.retryable
