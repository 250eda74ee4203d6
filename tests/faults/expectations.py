"""What must be true after a fault: exit codes, messages, errors of rows, and how many calls were repeated."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests import faulty
from tests.faults.lab import BLOCK, Seen
from tests.worlds import rows


def is_poison(word: str, reason: str) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        assert seen.codes == [0], seen.outputs[-1][-2000:]
        assert reason in seen.errors()[word]

    return check


def ended_its_process(word: str) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        is_poison(word, "ended its process")(seen)
        # Of two rows with no answer between them, the second may have met the pool's failure: the next run retries it.
        assert any(seen.errors()[one].count("poison: ") for one in (faulty.EXIT, faulty.SEGFAULT))

    return check


def complete(seen: Seen) -> None:
    assert seen.codes == [0], seen.outputs[-1][-2000:]
    assert all(row["error"] is None for row in rows(seen.run))


def little_again(times: int) -> Callable[[Seen], None]:
    """Each loss repeats at most what was in flight: the batch of the replica and the blocks of the tasks."""

    def check(seen: Seen) -> None:
        complete(seen)
        again = seen.summary["this_session"]["model_calls"] - len(seen.reference)
        assert 0 <= again <= times * 3 * BLOCK, f"{again} calls were repeated"
        assert sum(one["replicas_lost"] for one in seen.summary["this_session"]["models"].values()) >= min(times, 1)

    return check


def lost_at(share: str, low: float, high: float) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        little_again(len(seen.facts))(seen)
        assert low <= seen.facts[share] <= high

    return check


def grown(seen: Seen) -> None:
    complete(seen)
    assert (seen.facts["before"], seen.facts["after"]) == (1, 2)


def drained(seen: Seen) -> None:
    complete(seen)
    assert seen.facts["left"] < len(seen.reference), "the job ended before the node was lost"
    session = seen.summary["this_session"]
    assert session["models"]["llama-3b"]["replicas_lost"] == 0, "the replica was not replaced before the node was lost"
    assert "its node will be taken away: another replica is being started" in seen.outputs[-1]
    assert session["model_calls"] - len(seen.reference) <= 2 * BLOCK


def resumed(first: int) -> Callable[[Seen], None]:
    """The first job ended with a code; the second did only what was missing."""

    def check(seen: Seen) -> None:
        assert seen.codes == [first, 0], seen.outputs[-1][-2000:]
        assert 0 < seen.facts["kept"] < len(seen.reference)
        assert seen.facts["answered"] >= seen.facts["kept"]
        assert seen.summary["this_session"]["model_calls"] == len(seen.reference) - seen.facts["answered"]
        assert all(row["error"] is None for row in rows(seen.run))

    return check


def stopped(seen: Seen) -> None:
    resumed(3)(seen)
    assert "run the same command again" in seen.outputs[0]
    # `ray job stop` kills after 3 seconds. Only Ray's shutdown follows the release, and may be killed.
    assert seen.facts["seconds"] < 3, "the lease was not released before `ray job stop` kills"
    assert seen.facts["claims"] == []


def refused(seen: Seen) -> None:
    code, said = seen.facts["refused"]
    assert code == 1
    assert re.search(r"is held by caption \(process \d+ on .*one job at a time", said)
    assert seen.facts["went on"]


def asked_again(seen: Seen) -> None:
    assert seen.codes == [0, 0], seen.outputs[-1][-2000:]
    assert all(row["error"] is None for row in rows(seen.run))
    assert seen.facts["asked for captions"] == 0, "answers are stored apart"
    assert seen.summary["this_session"]["model_calls"] == seen.facts["lost"]


def only_the_new(seen: Seen) -> None:
    assert seen.codes == [0, 0], seen.outputs[-1][-2000:]
    assert seen.facts["asked"] == len(seen.facts["new"]) > 0


def only_the_new_voters(seen: Seen) -> None:
    complete(seen)
    assert seen.facts["asked"] == {"llama-3b": 0, "phi": len(seen.reference), "mistral": len(seen.reference)}


def survived(kind: str) -> Callable[[Seen], None]:
    def check(seen: Seen) -> None:
        complete(seen)
        assert seen.facts[kind] > 0, "no request met the failing store"

    return check


def ended_by_the_store(seen: Seen) -> None:
    resumed(1)(seen)
    assert "ACCESS_DENIED" in seen.outputs[0]
    assert "captions/" in seen.outputs[0].splitlines()[-1]


def ended_by_the_disk(seen: Seen) -> None:
    resumed(1)(seen)
    assert "No space left on device" in seen.outputs[0]
    assert seen.facts["temporary"] == []


def failed_by_name(seen: Seen) -> None:
    assert seen.codes[0] == 1
    assert "phi (miniature:voter-phi) cannot be started" in seen.outputs[0].splitlines()[-1]
    assert seen.facts["rows"] == 0


def decided_by_quorum(seen: Seen) -> None:
    assert seen.codes[1:] == [0, 0], seen.outputs[-1][-2000:]
    for row in seen.facts["by quorum"]:
        assert row["error"] is None
        assert {vote["voter"] for vote in row["votes"] if vote["answer"]} <= {"llama-3b", "mistral"}
    asked = seen.facts["asked"]
    assert asked["phi"] > 0
    assert asked["llama-3b"] == asked["mistral"] == 0
