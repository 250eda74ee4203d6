"""How models are spread over GPUs: three that are declared and not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from caslie_ray.storage.run import Run
from tests.clusters import Nodes, nodes
from tests.placed import EXPECTED, FOLDER, nodes_of, placed
from tests.worlds import VOTERS, fresh_run, voter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

GPUS = 3
ENGINE = "tests.placed:load"
CAPTIONER, NAMES = "captioner", [f"voter-{name}" for name in VOTERS[:3]]
SETTINGS = [
    f"lineup.captioner.engine={ENGINE}", "lineup.captioner.batch_size=2", "lineup.captioner.pool.max=null",
    'lineup.captioner.resources={"cpus": 0.1, "gpus": 1.0}',
    'lineup.captioner.alone={"gpus": 1.0, "batch_size": 3}',
    "votes.schedule=full",
]  # fmt: skip


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("placed")


@pytest.fixture(scope="module")
def cluster(notes: Path) -> Iterator[Nodes]:
    with nodes(0, {FOLDER: str(notes)}) as one:
        one.add(num_cpus=4, num_gpus=GPUS)
        yield one


def caption(
    cluster: Nodes, run: Run, notes: Path, schedule: str, expected: dict[str, int], settings: Sequence[str] = ()
) -> None:
    """Caption a run with the captioner and voters that are expected, each with so many replicas."""
    for note in notes.iterdir():
        note.unlink()
    (notes / EXPECTED).write_text(json.dumps(expected))
    voters = [
        voter(name, engine=ENGINE, batch_size=2, resources={"cpus": 0.1, "gpus": 0.25},
              alone={"gpus": 1.0, "batch_size": 3}, pool={"min": 1, "max": None})
        for name in VOTERS if f"voter-{name}" in expected
    ]  # fmt: skip
    chosen = [*SETTINGS, f"lineup.voters={json.dumps(voters)}", f"schedule={schedule}", *settings]
    arguments = [word for setting in chosen for word in ("--set", setting)]
    code, output = cluster.submit("caption", "--run", run.uri, *arguments).end(500)
    assert code == 0, output


def test_staged_gives_every_model_every_gpu(cluster: Nodes, notes: Path, world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    models = (CAPTIONER, NAMES[0])
    caption(cluster, run, notes, "staged", dict.fromkeys(models, GPUS))
    for role in models:
        assert placed(notes, role) == [(str(gpu), 3) for gpu in range(GPUS)], role


def test_streamed_gives_the_captioner_what_the_voters_leave(
    cluster: Nodes, notes: Path, world: Path, tmp_path: Path
) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption(cluster, run, notes, "streamed", {CAPTIONER: GPUS - 1, **dict.fromkeys(NAMES, 1)})
    voting = {gpu for role in NAMES for gpu, _ in placed(notes, role)}
    assert len(voting) == 1
    assert placed(notes, CAPTIONER) == [(str(gpu), 2) for gpu in range(GPUS) if str(gpu) not in voting]


def test_replicas_take_the_nodes_with_the_preferred_labels_and_others_once_those_are_full(
    cluster: Nodes, notes: Path, world: Path, tmp_path: Path
) -> None:
    spot = cluster.add(num_cpus=1, num_gpus=1, labels={"ray.io/market-type": "spot"})
    resources = {"cpus": 0.1, "gpus": 1.0, "labels": [{"ray.io/market-type": "spot"}, {}]}
    for replicas in (1, 2):
        wanted = [f"lineup.captioner.resources={json.dumps(resources)}", f"lineup.captioner.pool.max={replicas}"]
        run = fresh_run(world, tmp_path / f"run-{replicas}")
        caption(cluster, run, notes, "streamed", {CAPTIONER: replicas, NAMES[0]: 1}, wanted)
        preferred = [raylet in cluster.processes_of(spot) for raylet in nodes_of(notes, CAPTIONER)]
        assert sorted(preferred) == [False, True][-replicas:]
