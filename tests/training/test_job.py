from __future__ import annotations

import json
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import torch
from peft import PeftModel
from tensorboardX.proto import event_pb2
from transformers import AutoModelForCausalLM

from caslie_ray.engines import EngineSpec, Request, load_engine, resolve
from caslie_ray.errors import EngineError, RunError, RunLost
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.prompts import Prompt
from caslie_ray.storage.lease_files import Fence
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.training import TrainingError, plan_training, planned_models, train, training_specs
from caslie_ray.training._checkpoints import load_checkpoint, save_checkpoint
from caslie_ray.training._ray_checkpoints import checkpoints_folder, discard_if_broken
from caslie_ray.training._tracking import import_tracker
from caslie_ray.training._train_loop import TrainingLoop, is_better
from tests.training.test_optimizer_steps import examples, learner

pytestmark = pytest.mark.usefixtures("ray_cluster")

SETTINGS = [
    "training.global_batch=8",
    "training.checkpoint_steps=4",
    "training.resources.cpus=0.5",
    "training.variants=[caslie]",
    "training.num_workers={min: 1, max: 1}",
    "experiments.shuffled=false",
    "training.epochs=2",
]


LAST = ["training.merge=true", "training.learning_rate=0.01", "training.keep=last"]


def small() -> Profile:
    return load_profile("mini", SETTINGS)


def write_instructions(opened: Run, *, long_caption: bool = False) -> Run:
    held = examples().rows.to_pylist()
    split = [{"split": "validation" if number % 4 == 0 else "train"} for number in range(len(held))]
    table = [{**row, **part, "variant": "caslie", "captions_used": 0} for row, part in zip(held, split, strict=True)]
    if long_caption:  # longer than the context
        prompt, caption = table[1]["prompt"], "a red mug of steel " * 400
        table[1] |= {"prompt": prompt + caption, "prompt_captions": [[len(prompt), len(prompt + caption)]]}
    opened.write("instructions", "0", pa.Table.from_pylist(table, schema=SCHEMAS["instructions"]))
    return opened


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_instructions(open_run(str(tmp_path / "run")))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was trained, merged, and asked for once more."""
    run = write_instructions(open_run(str(tmp_path_factory.mktemp("trained") / "run")), long_caption=True)
    chosen = load_profile("mini", [*SETTINGS, "training.merge=true", "training.learning_rate=0.01"])
    assert "18 instructions, 6 steps of 8" in plan_training(run, chosen)[0]
    (first,) = train(run, chosen, quiet=True)["models"]
    assert first["trained_now"]
    assert first["steps"] == 6
    assert (first["captions_cut"], first["cut"], first["too_long"]) == (1, 0, 0)
    (again,) = train(run, chosen, quiet=True)["models"]
    assert not again["trained_now"]
    assert plan_training(run, chosen)[0].endswith("finished")
    return Path(first["folder"])


def test_a_base_that_can_never_be_loaded_ends_the_job_before_workers_start(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(resolve("miniature:unim3-base").location, tmp_path / "mute"))
    (folder / "chat_template.jinja").unlink()
    chosen = load_profile("mini", [*SETTINGS, f"lineup.base.checkpoint={folder}"])
    monkeypatch.setattr("caslie_ray.training._job.fit", lambda *_: pytest.fail("workers were started"))
    for job in (plan_training, train):
        with pytest.raises(EngineError, match="has no chat template"):
            job(run, chosen)


def test_an_adapter_changes_its_base_and_answers_in_an_engine(made: Path) -> None:
    adapter = str(made / "best")
    base = AutoModelForCausalLM.from_pretrained(resolve("miniature:unim3-base").location, dtype=torch.float32)
    ids = torch.arange(1, 40)[None]
    plain = base(ids).logits.detach().clone()
    assert not torch.allclose(plain, PeftModel.from_pretrained(base, adapter)(ids).logits)
    engine = load_engine(EngineSpec("miniature:unim3-base", context=256, adapters={"caslie": adapter}))
    asked = [Request("0", Prompt("Is it red?"), adapter=name) for name in (None, "caslie")]
    without, with_ = engine.choose(asked, ("yes", "no"))
    assert without.probabilities != with_.probabilities


def test_a_merged_model_answers_as_base_and_adapter(made: Path) -> None:
    plain = load_engine(EngineSpec(str(made / "merged"), context=256))
    spec = EngineSpec("miniature:unim3-base", context=256, adapters={"caslie": str(made / "best")})
    adapted = load_engine(spec)
    asked = [Request("0", Prompt("Is the colour of item 3 red?"))]
    merged = plain.choose(asked, ("yes", "no"))
    apart = adapted.choose([replace(asked[0], adapter="caslie")], ("yes", "no"))
    base = adapted.choose(asked, ("yes", "no"))
    assert merged[0].probabilities == pytest.approx(apart[0].probabilities, abs=1e-5)
    assert abs(base[0].probabilities[0] - apart[0].probabilities[0]) > 1e-3


def test_curves_and_both_adapters_are_kept_and_checkpoints_are_not(made: Path) -> None:
    assert {path.name for path in made.iterdir()} == {"best", "last", "merged", "tensorboard", "training.json"}
    assert [path.name for path in made.parent.iterdir()] == [made.name]
    found = EventAccumulator(str(made / "tensorboard"))
    record = json.loads((made / "training.json").read_text())
    assert (record["captions_cut"], record["too_long"]) == (1, 0)
    assert found.scalars("train/loss") == pytest.approx([row["loss"] for row in record["curve"]])
    assert found.scalars("validation/metric") == pytest.approx([row["metric"] for row in record["validations"]])
    assert record["best"]["loss"] == min(row["loss"] for row in record["validations"])


def test_the_lowest_loss_is_best_and_the_metric_decides_between_equal_ones() -> None:
    found = {"loss": 0.5, "metric": 0.3}
    assert is_better({"loss": 0.4, "metric": 0.1}, found)
    assert not is_better({"loss": 0.6, "metric": 0.9}, found)
    assert is_better({"loss": 0.50001, "metric": 0.4}, found)
    assert is_better({"metric": 0.4}, {"metric": 0.3})
    assert not is_better({"metric": 0.9}, found)


def test_a_run_without_instructions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no instructions of the variant caslie in the split train: run fuse"):
        train(open_run(str(tmp_path)), small())


def test_a_diverging_learning_rate_ends_the_job_with_the_samples(run: Run) -> None:
    broken = load_profile("mini", [*SETTINGS, "training.learning_rate=1e30", "training.max_failures=2"])
    with pytest.raises(TrainingError, match=r"step [1-5]: the (loss|gradient) is"):
        train(run, broken, quiet=True)


def test_a_machine_that_is_too_small_is_named_before_anything_starts(run: Run) -> None:
    large = load_profile("mini", [*SETTINGS, "training.num_workers={min: 50, max: 50}"])
    with pytest.raises(
        TrainingError, match=r"50 training workers: 25 CPUs are needed and this machine has \d+; lower training.num"
    ):
        train(run, large, quiet=True)


def test_a_merge_that_did_not_end_is_done_again(made: Path) -> None:
    run = open_run(str(made.parent.parent))
    config = made / "merged" / "config.json"
    config.unlink()
    (made / "merged" / "adapter.json").unlink()
    chosen = load_profile("mini", [*SETTINGS, "training.merge=true", "training.learning_rate=0.01"])
    steps = (made / "training.json").stat().st_mtime_ns
    train(run, chosen, quiet=True)
    assert config.exists()
    assert (made / "training.json").stat().st_mtime_ns == steps
    # The other adapter is another merged model.
    train(run, load_profile("mini", [*SETTINGS, *LAST]), quiet=True)
    record = json.loads((made / "training.json").read_text())
    assert json.loads((made / "merged" / "adapter.json").read_text())["adapter"] == record["adapters"]["last"]
    train(run, chosen, quiet=True)


@pytest.mark.parametrize("how", ["cut short", "of a checkpoint that is gone", "of another Ray"])
def test_incomplete_checkpoints_are_set_aside(run: Run, caplog: pytest.LogCaptureFixture, how: str) -> None:
    (spec,) = training_specs(small())
    folder = checkpoints_folder(spec)
    snapshot = {"ray_version": ray.__version__, "checkpoint_results": [{"checkpoint_dir_name": "checkpoint_1"}]}
    run.put(run.path(folder, "checkpoint_1", "state.json"), b"{}")
    kept = run.path(folder, "checkpoint_manager_snapshot.json")
    run.put(kept, json.dumps(snapshot).encode())
    discard_if_broken(run, folder)
    assert run.listed(run.path(folder))
    if how == "cut short":
        run.put(kept, json.dumps(snapshot).encode()[:-20])
    elif how == "of another Ray":
        run.put(kept, json.dumps({**snapshot, "ray_version": "2.0"}).encode())
    else:
        run.delete([run.path(folder, "checkpoint_1", "state.json")])
    before = run.read_bytes(kept)
    discard_if_broken(run, folder)
    assert "are damaged or of another version of Ray: the model is trained from its start; a copy is in" in caplog.text
    assert not run.listed(run.path(folder))
    assert run.read_bytes(run.path("damaged", folder, "checkpoint_manager_snapshot.json")) == before
    states = run.info([run.path("damaged", folder, "checkpoint_1", "state.json")])
    assert states[0].is_file == (how != "of a checkpoint that is gone")


def test_models_of_a_task_without_samples_are_left_out(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    lines = plan_training(run, load_profile("mini", [*SETTINGS, "experiments.task_specific=true"]))
    named = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert named == ["caslie", "task-specific-AP"]
    assert "task-specific-SR is left out: the run has no samples of its task in the split train" in caplog.text


def test_what_the_best_adapter_is_chosen_by_is_part_of_the_model(run: Run) -> None:
    (before,) = planned_models(run, small())
    rows = run.read("instructions").to_pylist()
    next(row for row in rows if row["split"] == "validation")["response"] = "no"
    run.write("instructions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))
    (after,) = planned_models(run, small())
    assert after.examples.train_digest == before.examples.train_digest
    assert after.folder != before.folder


def test_answers_outside_the_options_are_left_out_and_named(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    (path,) = run.files("instructions")
    rows = run.read_file(path).to_pylist()
    odd = next(row for row in rows if row["split"] == "train")
    odd["response"] = "perhaps"
    run.write("instructions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))
    assert plan_training(run, small())[0].startswith("caslie    17 instructions")
    assert (
        f"1 samples are left out, for their answer is none of their options or labels: {odd['sample_id']}"
        in caplog.text
    )


def test_no_checkpoint_is_reported_once_another_job_has_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*_: object) -> None:
        run.put(run.path("lease", "epoch-00000002.json"), b"{}")

    (spec,) = training_specs(small())
    one = learner()
    held = replace(run, fence=Fence(1, {}))
    progress = TrainingLoop(held, spec, "models/x", "", None, one, one._turns, examples())
    monkeypatch.setattr("caslie_ray.training._train_loop.save_checkpoint", save)
    monkeypatch.setattr(ray.train, "report", lambda *_, **__: pytest.fail("was reported"))
    with pytest.raises(RunLost):
        progress._report()


def test_a_checkpoint_of_another_base_is_refused_by_name(tmp_path: Path) -> None:
    one = learner()
    save_checkpoint(one.model, one.optimizer, tmp_path, {"base": "1234", "step": 1})
    with pytest.raises(TrainingError, match=r"is of the base 1234, and 5678 is to be trained: use another run"):
        load_checkpoint(one.model, one.optimizer, tmp_path, "5678")
    assert load_checkpoint(one.model, one.optimizer, tmp_path, "1234")["step"] == 1


def test_training_stops_early_without_improvement(run: Run) -> None:
    patient = load_profile(
        "mini", [*SETTINGS, "training.epochs=20", "training.validations=20", "training.patience=2",
                 "training.learning_rate=1e-12"]
    )  # fmt: skip
    (made,) = train(run, patient, quiet=True)["models"]
    assert made["steps"] < 20 * 3


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TrainingError, match=r"pip install 'caslie_ray\[mlflow\]'"):
        import_tracker("mlflow")


class EventAccumulator:
    """The values in TensorBoard's event files, read as the protocol buffers that they are."""

    def __init__(self, folder: str) -> None:
        self._values: dict[str, list[float]] = {}
        for path in sorted(Path(folder).iterdir()):
            data = path.read_bytes()
            at = 0
            while at < len(data):
                (length,) = struct.unpack("<Q", data[at : at + 8])
                event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
                for value in event.summary.value:
                    self._values.setdefault(value.tag, []).append(value.simple_value)
                at += length + 16

    def scalars(self, name: str) -> list[float]:
        return self._values[name]
