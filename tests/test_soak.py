"""Half an hour of killed and added nodes, and how many calls two kills of the driver repeat."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from caslie_ray.captioning import caption_status
from caslie_ray.miniature import WorldSize
from caslie_ray.storage.run import open_run
from tests.clusters import Nodes, Submitted, nodes, until
from tests.faulty import COUNTED
from tests.worlds import VOTERS, InProcess, caption_here, draw, fresh_run, profile, rows, stored_ids, voter

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(5400)]

SIZE = WorldSize(train=205, validation=0, ind=42, ood=42)
MINUTES = 30
EVERY_S = 120.0
SETTINGS = ["captions.source=dataset", "storage.block_rows=8"]


def world(cluster: Nodes, folder: Path) -> Path:
    job = cluster.submit("ingest", "--run", str(folder / "world"), "--source", str(draw(folder / "source", SIZE)))
    code, said = job.end(600)
    assert code == 0, said
    return folder / "world"


def _wait(job: Submitted, seconds: float) -> None:
    due = time.monotonic() + seconds
    while job.running and time.monotonic() < due:
        time.sleep(1.0)


def test_nodes_killed_and_added_for_half_an_hour(tmp_path: Path) -> None:
    """A node is killed or added every two minutes; the seed says which."""
    dice = random.Random(5)
    events: list[str] = []
    with nodes(2) as cluster:
        run = fresh_run(world(cluster, tmp_path), tmp_path / "run")
        views = sorted(row["view_id"] for row in rows(run, "views"))
        slow = voter("llama-3b", engine="tests.faulty:very_slow", batch_size=8, pool={"min": 1, "max": 2})
        settings = [f"lineup.voters={json.dumps([slow])}", *SETTINGS]
        job = cluster.submit("caption", "--run", run.uri, "--set", *settings)
        begun = time.monotonic()
        while job.running and time.monotonic() - begun < MINUTES * 60:
            _wait(job, EVERY_S)
            kill = len(cluster.workers) > 2 or (len(cluster.workers) == 2 and dice.random() < 0.5)
            if kill:
                cluster.kill(dice.choice(cluster.workers))
            else:
                cluster.add()
            events.append(
                f"{time.monotonic() - begun:.0f}s {'killed' if kill else 'added'}, {caption_status(run).done} done"
            )
        code, said = job.end(3600)
        print(*events, said, f"{time.monotonic() - begun:.0f} s", sep="\n")
    assert code == 0, said
    assert len(events) >= 10, "it was over too soon to say anything"
    assert stored_ids(run) == views
    assert all(row["error"] is None for row in rows(run))
    assert run.read_json("summary/caption.json")["this_session"]["model_calls"] <= 1.05 * len(views)


def test_two_kills_of_the_driver_repeat_few_calls_of_2000_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver is killed at 30% and at 60%: the mini profile, captioner and voters."""
    counted = tmp_path / "counted"
    counted.mkdir()
    lineup = [voter(name, engine="tests.faulty:counted", resources={"cpus": 0.25}) for name in VOTERS]
    settings = [f"lineup.voters={json.dumps(lineup)}", "lineup.captioner.engine=tests.faulty:counted"]
    with nodes(1, {COUNTED: str(counted)}) as cluster:
        run = fresh_run(world(cluster, tmp_path), tmp_path / "run")
        views = sorted(row["view_id"] for row in rows(run, "views"))
        for share in (0.3, 0.6, None):
            job = cluster.submit("caption", "--run", run.uri, "--set", *settings)
            if share is not None:
                wanted = round(share * len(views))
                while job.running and len(set(stored_ids(run))) < wanted:
                    time.sleep(0.2)
                assert job.running
                job.process.kill()
                job.end()
                until(lambda: not cluster.replicas(), what="its replicas to end")
        code, said = job.end(3600)
    assert code == 0, said
    assert stored_ids(run) == views
    answered = [line for file in counted.iterdir() for line in file.read_text().split()]
    again = len(answered) - len(set(answered))
    print(f"{len(views)} views, {len(set(answered))} calls, {again} of them twice: {again / len(set(answered)):.2%}")
    assert again <= 0.05 * len(set(answered))
    reference = fresh_run(tmp_path / "world", tmp_path / "reference")
    caption_here(reference, profile(*[voter(name) for name in VOTERS]), InProcess())
    assert [_plain(row) for row in rows(run)] == [_plain(row) for row in rows(open_run(reference.uri))]


def _plain(row: dict[str, object]) -> tuple[object, ...]:
    return row["view_id"], row["caption"], row["verdict"], row["error"]
