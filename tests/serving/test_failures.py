"""A server whose models fail: a voter that cannot be loaded, and a captioner that is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.clusters import until
from tests.serving.conftest import LINEUP
from tests.serving.server import Server, serving
from tests.serving.test_bad_requests import GOOD
from tests.worlds import voter

pytestmark = pytest.mark.timeout(600)

VOTERS = [voter("llama-3b"), voter("phi"), voter("broken", checkpoint="/no/such/folder")]


@pytest.fixture(scope="module")
def degraded() -> Iterator[Server]:
    """A server with two voters of three: the third cannot be loaded."""
    lineup = [*LINEUP, f"lineup.voters={json.dumps(VOTERS)}"]
    settings = [*lineup, "faults.missing_voter=quorum", "serving.voters=together"]
    with serving(settings) as server:
        yield server


def question(text: str, **more: Any) -> dict[str, Any]:
    return {**GOOD, "fields": {"review": text}, **more}


def replica_of(server: Server, model: str) -> psutil.Process:
    """The process of a model's replica."""
    processes = psutil.Process(server.process.pid).children(recursive=True)
    (found,) = [one for one in processes if f"ServeReplica:caslie:{model}" in " ".join(_command(one))]
    return found


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_voter_that_cannot_be_loaded_is_a_failed_vote(degraded: Server) -> None:
    with degraded.client() as client:
        answer = client.post("/v1/predict", json=question("It is too small."))
    assert answer.status_code == 200, answer.text
    (view,) = answer.json()["views"]
    votes = {vote["voter"]: vote for vote in view["votes"]}
    assert votes["broken"]["answer"] is None
    assert "/no/such/folder" in votes["broken"]["error"]
    assert {votes[name]["answer"] for name in ("llama-3b", "phi")} <= {"yes", "no"}
    assert view["error"] is None
    assert view["verdict"] is (votes["llama-3b"]["answer"] == votes["phi"]["answer"] == "yes")


def test_without_its_captioner_it_answers_from_the_text_if_that_is_allowed(degraded: Server) -> None:
    with degraded.client() as client:
        replica_of(degraded, "captioner").kill()
        refused = client.post("/v1/predict", json=question("The colour is wrong.", timeout_s=1.0))
        answer = until(lambda: _answer_from_text(client), 60, "an answer from the text")
        assert refused.status_code in (503, 504), refused.text
        assert answer["views"] == [None]
        assert "from the text alone" in answer["note"]
        late = question("It came late.")
        until(lambda: client.post("/v1/predict", json=late).status_code == 200, 120, "the captioner")


def _answer_from_text(client: httpx.Client) -> dict[str, Any] | None:
    asked = question("It was a gift.", timeout_s=3.0, allow_text_only=True, images=[GOOD["images"][0]])
    response = client.post("/v1/predict", json=asked)
    found: dict[str, Any] = response.json()
    return found if response.status_code == 200 and found["text_only"] else None
