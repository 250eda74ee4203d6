from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from caslie_ray.engines import EngineSpec, Request, load_engine, resolve
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.prompts import Prompt
from caslie_ray.runs import Run, RunError, open_run
from caslie_ray.tables import SCHEMAS
from caslie_ray.training import TrainingError, plan_training, train
from tests.training.test_learner import examples

pytestmark = pytest.mark.usefixtures("ray_cluster")

SETTINGS = [
    "training.global_batch=8",
    "training.checkpoint_steps=4",
    "training.resources.cpus=0.5",
    "training.epochs=2",
]


def small() -> Profile:
    return load_profile("mini", SETTINGS)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    opened = open_run(str(tmp_path / "run"))
    held = examples().rows.to_pylist()
    split = [{"split": "validation" if number % 4 == 0 else "train"} for number in range(len(held))]
    table = [
        {**row, **part, "variant": "caslie", "options": ["yes", "no"], "captions_used": 0}
        for row, part in zip(held, split, strict=True)
    ]
    opened.write("instructions", "0", pa.Table.from_pylist(table, schema=SCHEMAS["instructions"]))
    return opened


def test_a_model_is_trained_once_and_its_adapter_answers(run: Run) -> None:
    assert "18 instructions, 6 steps of 8" in plan_training(run, small())[0]
    first = train(run, small())["models"][0]
    assert first["trained_now"]
    assert first["steps"] == 6
    again = train(run, small())["models"][0]
    assert not again["trained_now"]
    assert plan_training(run, small())[0].endswith("finished")
    adapter = str(Path(first["folder"]) / "best")
    base = AutoModelForCausalLM.from_pretrained(resolve("miniature:unim3-base").location, dtype=torch.float32)
    ids = torch.arange(1, 40)[None]
    plain = base(ids).logits.detach().clone()
    assert not torch.allclose(plain, PeftModel.from_pretrained(base, adapter)(ids).logits)
    engine = load_engine(EngineSpec("miniature:unim3-base", context=256, adapters={"caslie": adapter}))
    asked = [Request("0", Prompt("Is it red?"), adapter=name) for name in (None, "caslie")]
    without, with_ = engine.choose(asked, ("yes", "no"))
    assert without.probabilities != with_.probabilities


def test_a_model_is_merged_into_its_base(run: Run) -> None:
    (made,) = train(run, load_profile("mini", [*SETTINGS, "training.merge=true", "training.learning_rate=0.01"]))[
        "models"
    ]
    folder = Path(made["folder"])
    plain = load_engine(EngineSpec(str(folder / "merged"), context=256))
    spec = EngineSpec("miniature:unim3-base", context=256, adapters={"caslie": str(folder / "best")})
    adapted = load_engine(spec)
    asked = [Request("0", Prompt("Is the colour of item 3 red?"))]
    merged, apart = (
        plain.choose(asked, ("yes", "no")),
        adapted.choose([replace(asked[0], adapter="caslie")], ("yes", "no")),
    )
    base = adapted.choose(asked, ("yes", "no"))
    assert merged[0].probabilities == pytest.approx(apart[0].probabilities, abs=1e-5)
    assert abs(base[0].probabilities[0] - apart[0].probabilities[0]) > 1e-3


def test_a_run_without_instructions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no instructions of the variant caslie in the split train: run fuse"):
        train(open_run(str(tmp_path)), small())


def test_a_rate_that_breaks_the_loss_ends_the_job_with_the_samples(run: Run) -> None:
    broken = load_profile("mini", [*SETTINGS, "training.learning_rate=1e30", "training.max_failures=0"])
    with pytest.raises(TrainingError, match=r"step [1-5]: the (loss|gradient) is"):
        train(run, broken)
