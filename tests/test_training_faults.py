"""Training and prediction on a cluster that loses nodes: exact to a rounding, whatever became of it on the way."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from tests.clusters import Nodes, Submitted, nodes, until
from tests.worlds import fresh_run

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(900)]

STEPS, EVERY = 40, 5
NOTICE_S = 12  # of a node that will be taken away
SETTINGS = [
    "training.global_batch=16",
    "training.epochs=10",
    f"training.checkpoint_steps={EVERY}",
    "training.learning_rate=0.001",
    "training.resources.cpus=2",  # a node's all: two workers are on two nodes
    "training.keep=last",
    "training.variants=[caslie]",
    "experiments.shuffled=false",
    "lineup.base.max_new_tokens=6",
    "storage.block_rows=8",
]


def instructions() -> pa.Table:
    """64 of the split train, so 4 steps an epoch, and 96 of the split ind; the miniature base knows the words."""
    colours = ("red", "blue", "green", "yellow")
    rows = [
        {
            "sample_id": f"{number:032x}",
            "task": "answerability_prediction",
            "split": "train" if number < 64 else "ind",
            "variant": variant,
            "prompt": f"Is the colour of item {number} named?\n"
            + "".join(f"note: mine is {colours[(number + n) % 4]}\n" for n in range(number % 9)),
            "prompt_fields": [],
            "response": "yes" if number % 9 else "no",
            "options": ["yes", "no"],
            "captions_used": 0,
        }
        for variant in ("caslie", "uia")
        for number in range(160)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"])


@dataclass
class Seen:
    """The result of a scenario: the run, exit codes and output."""

    run: Run
    codes: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def take(self, job: Submitted) -> None:
        code, said = job.end(300)
        self.codes.append(code)
        self.said.append(said)

    @property
    def folder(self) -> Path:
        """Of the one model that was trained."""
        (found,) = Path(self.run.path("models")).glob("caslie-*")
        return found

    @property
    def losses(self) -> list[float]:
        return [step["loss"] for step in json.loads((self.folder / "training.json").read_text())["curve"]]

    def product(self) -> torch.Tensor:
        """All of the adapter's B A, end to end."""
        weights = load_file(self.folder / "last" / "adapter_model.safetensors")
        pairs = [
            (weights[name.replace("lora_A", "lora_B")], weights[name]) for name in sorted(weights) if "lora_A" in name
        ]
        return torch.cat([(b @ a).flatten() for b, a in pairs])

    def answers(self) -> dict[str, str]:
        rows = self.run.read("predictions", ["sample_id", "text"]).to_pylist()
        return {row["sample_id"]: row["text"] for row in rows}


class Lab:
    def __init__(self, cluster: Nodes, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.played: dict[str, Seen] = {}

    def play(self, scenario: Callable[[Lab], Seen]) -> Seen:
        if scenario.__name__ not in self.played:
            self.cluster.fill(2)
            self.played[scenario.__name__] = scenario(self)
        return self.played[scenario.__name__]

    def fresh(self, name: str) -> Seen:
        seen = Seen(open_run(str(self.folder / name)))
        seen.run.write("instructions", "0", instructions())
        return seen

    def train(self, seen: Seen, workers: int, *settings: str) -> Submitted:
        pool = json.dumps({"min": workers, "max": workers})
        return self.submit("train", seen, f"training.num_workers={pool}", *settings)

    def submit(self, job: str, seen: Seen, *settings: str) -> Submitted:
        chosen = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
        return self.cluster.submit(job, "--profile", "mini", "--run", seen.run.uri, *chosen)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    # Ray Train looks for notices every 5 seconds: on a busy machine too seldom for one of `NOTICE_S`.
    with nodes(2, {"RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}) as cluster:
        yield Lab(cluster, tmp_path_factory.mktemp("training"))


def begun(seen: Seen, job: Submitted) -> None:
    """Wait until a checkpoint is stored, and see to it that there is still something to do."""
    folder = Path(seen.run.path("models"))
    until(lambda: not job.running or list(folder.glob("checkpoints-*/checkpoint_*")), what="a checkpoint")
    assert job.running, job.end()[1][-3000:]


def lose_drained(lab: Lab, *, after_s: float) -> None:
    """Announce that the worker's node will be taken away in `NOTICE_S`, and take it away; another one comes."""
    node = lab.cluster.busy("RayTrainWorker")
    lab.cluster.drain(node, NOTICE_S)
    time.sleep(after_s)
    lab.cluster.kill(node)
    lab.cluster.add()


# --- scenarios ---------------------------------------------------------------------------------------------------


def one_worker(lab: Lab) -> Seen:
    seen = lab.fresh("one")
    seen.take(lab.train(seen, 1))
    return seen


def two_workers(lab: Lab) -> Seen:
    seen = lab.fresh("two")
    seen.take(lab.train(seen, 2))
    return seen


def lost_node(lab: Lab) -> Seen:
    seen = lab.fresh("lost")
    # Another model follows, for which no failure is left.
    job = lab.train(seen, 2, "training.variants=[caslie,uia]", "training.max_failures=1")
    begun(seen, job)
    lab.cluster.kill(lab.cluster.workers[0])
    lab.cluster.add()
    seen.take(job)
    return seen


def drained_node(lab: Lab) -> Seen:
    seen = lab.fresh("drained")
    job = lab.train(seen, 1)
    begun(seen, job)
    lose_drained(lab, after_s=5)
    seen.take(job)
    return seen


def preempted_without_failures(lab: Lab) -> Seen:
    seen = lab.fresh("preempted")
    job = lab.train(seen, 1, "training.max_failures=0", "training.max_preemptions=1", "training.epochs=60")
    begun(seen, job)
    lose_drained(lab, after_s=NOTICE_S + 2)  # Ray takes a node that is lost before its deadline for a failure
    assert job.running, "the training ended before its node was lost"
    seen.take(job)
    return seen


def drained_too_often(lab: Lab) -> Seen:
    seen = lab.fresh("too-often")
    job = lab.train(seen, 1, "training.max_failures=9", "training.max_preemptions=0", "training.epochs=100")
    begun(seen, job)
    lose_drained(lab, after_s=NOTICE_S + 2)
    seen.take(job)
    return seen


def killed_driver(lab: Lab) -> Seen:
    seen = lab.fresh("driver")
    job = lab.train(seen, 1)
    begun(seen, job)
    job.process.kill()
    seen.take(job)
    seen.facts["finished"] = list(Path(seen.run.path("models")).glob("*/training.json"))
    seen.take(lab.train(seen, 1))
    return seen


def stopped_driver(lab: Lab) -> Seen:
    seen = lab.fresh("stopped")
    job = lab.train(seen, 1)
    begun(seen, job)
    since = time.monotonic()
    job.process.send_signal(signal.SIGTERM)
    seen.take(job)
    seen.facts["seconds"] = time.monotonic() - since
    seen.take(lab.train(seen, 1))
    return seen


def lost_while_answering(lab: Lab) -> Seen:
    trained = lab.play(one_worker)
    for name in ("answered", "undisturbed"):
        fresh_run(Path(trained.run.root), lab.folder / name)
    whole = Seen(open_run(str(lab.folder / "undisturbed")))
    whole.take(lab.submit("predict", whole, "prediction.splits=[ind]"))
    seen = Seen(open_run(str(lab.folder / "answered")), facts={"whole": whole})
    job = lab.submit("predict", seen, "prediction.splits=[ind]", "lineup.base.engine=tests.faulty:slow")
    until(lambda: not job.running or seen.run.files("predictions"), what="the first answers")
    assert job.running, job.end()[1][-3000:]
    lab.cluster.kill(lab.cluster.busy())
    lab.cluster.add()
    seen.take(job)
    return seen


# --- what is expected --------------------------------------------------------------------------------------------


def exact(codes: list[int]) -> Callable[[Lab, Seen], None]:
    """The model is that of one worker that nothing happened to."""

    def look(lab: Lab, seen: Seen) -> None:
        assert seen.codes == codes, seen.said[-1][-3000:]
        reference = lab.play(one_worker)
        assert len(seen.losses) == STEPS
        assert seen.losses == pytest.approx(reference.losses, rel=1e-4)
        apart = (seen.product() - reference.product()).norm() / reference.product().norm()
        assert apart < 1e-4, f"relative distance {apart:.2e}"

    return look


def and_the_next(lab: Lab, seen: Seen) -> None:
    exact([0])(lab, seen)
    done = {model["model"]: model["steps"] for model in seen.run.read_json("summary/train.json")["models"]}
    assert done == {"caslie": STEPS, "uia": STEPS}


def learned(lab: Lab, seen: Seen) -> None:
    assert seen.codes == [0], seen.said[-1][-3000:]
    assert sum(seen.losses[-4:]) < 0.5 * sum(seen.losses[:4])


def saved_in_time(lab: Lab, seen: Seen) -> None:
    exact([0])(lab, seen)
    record = json.loads((seen.folder / "training.json").read_text())
    assert [step for step in record["checkpoints"] if step % EVERY], "none between two that were due"


def trained_on(lab: Lab, seen: Seen) -> None:
    assert seen.codes == [0], seen.said[-1][-3000:]
    assert len(seen.losses) == 6 * STEPS


def ended(lab: Lab, seen: Seen) -> None:
    assert seen.codes == [1], seen.said[-1][-3000:]
    assert "reempt" in seen.said[0]


def resumed(lab: Lab, seen: Seen) -> None:
    assert not seen.facts["finished"]
    exact([-signal.SIGKILL, 0])(lab, seen)


def stopped(lab: Lab, seen: Seen) -> None:
    assert "run the same command again" in seen.said[0]
    assert seen.facts["seconds"] < 5
    exact([3, 0])(lab, seen)


def answered(lab: Lab, seen: Seen) -> None:
    assert seen.codes == [0], seen.said[-1][-3000:]
    assert seen.answers() == seen.facts["whole"].answers()
    assert len(seen.answers()) == 96
    session = seen.run.read_json("summary/predict.json")["this_session"]
    assert session["replicas_lost"] in (1, 2)  # the node may have held both
    assert session["model_calls"] - 96 <= session["replicas_lost"] * 3 * 8


@dataclass(frozen=True)
class Fault:
    name: str
    scenario: Callable[[Lab], Seen]
    expect: Callable[[Lab, Seen], None]


BEFORE = [Fault("nothing", one_worker, learned), Fault("nothing, on two nodes", two_workers, exact([0]))]
MATRIX = [
    Fault("a node is lost while a model is trained", lost_node, and_the_next),
    Fault("a node is drained, then lost, while a model is trained", drained_node, saved_in_time),
    Fault("a node is preempted and training.max_failures is 0", preempted_without_failures, trained_on),
    Fault("nodes are drained more often than training.max_preemptions", drained_too_often, ended),
    Fault("the driver is killed while a model is trained", killed_driver, resumed),
    Fault("the driver receives SIGTERM while a model is trained", stopped_driver, stopped),
    Fault("a node is lost while models answer", lost_while_answering, answered),
]


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=fault.name.replace(" ", "-")) for fault in [*BEFORE, *MATRIX]]
)
def test_fault(lab: Lab, fault: Fault) -> None:
    fault.expect(lab, lab.play(fault.scenario))
