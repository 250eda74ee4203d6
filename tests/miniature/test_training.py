import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from caslie_ray.miniature import train
from caslie_ray.miniature._records import prompts_of
from caslie_ray.miniature._training import captioner
from caslie_ray.miniature._training import questions as asking
from caslie_ray.miniature._training.base import BASE, BasePlan, readings, train_base
from caslie_ray.miniature._training.captioner import CaptionerPlan, captions_by, examples, train_captioner
from caslie_ray.miniature._training.comparisons import comparisons
from caslie_ray.miniature._training.exercises import exercises, lines_of
from caslie_ray.miniature._training.judgements import KINDS, judgements
from caslie_ray.miniature._training.loop import Plan, fit
from caslie_ray.miniature._training.muon import Muon, orthogonalised
from caslie_ray.miniature._training.pixels import pixels_of
from caslie_ray.miniature._training.questions import drills, questions
from caslie_ray.miniature._training.starts import initialize_induction_heads
from caslie_ray.miniature._training.text import new_tokenizer, world_samples
from caslie_ray.miniature._training.voters import VOTERS, new_model, train_voter
from caslie_ray.miniature.catalogue import COMPLEMENTS, held_out
from caslie_ray.miniature.truth import helps, named_in
from caslie_ray.tasks import TASKS

TWO = Plan(steps=2, batch=2, rate=1e-3)
TINY = CaptionerPlan(tower=TWO, words=TWO, whole=TWO)


def test_the_learning_rate_warms_up_then_decays_to_zero() -> None:
    plan = Plan(steps=100, batch=1, rate=1.0)
    rates = [plan.rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(1.0) == rates[5]
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.001


def test_muon_orthogonalises_matrices_of_either_shape() -> None:
    torch.manual_seed(0)
    for shape in ((8, 32), (32, 8), (16, 16)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
        assert float(values.min()) > 0.3
        assert float(values.max()) < 1.3


def test_muon_finds_the_least_squares() -> None:
    torch.manual_seed(0)
    wanted, matrix = torch.randn(6, 4), nn.Parameter(torch.zeros(6, 4))
    optimiser = Muon([matrix], lr=0.1)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimiser.zero_grad()
        (matrix - wanted).square().sum().backward()
        optimiser.step()
    assert ((matrix.detach() - wanted).norm() / wanted.norm()).item() < 0.05


class _Stopped(Exception):
    pass


class _Layered(nn.Module):
    """A matrix of a layer, which Muon trains, and a head, which AdamW trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(3, 4)])})
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body["layers"][0](x))  # type: ignore[index]  # a list of modules
        return y


def test_a_stopped_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    plan = Plan(steps=6, batch=1, rate=0.1)

    def run(state: Path, stop_after: int | None) -> Tensor:
        torch.manual_seed(0)
        module = _Layered()
        seen = 0

        def loss_of(rng: Random, progress: float) -> Tensor:
            nonlocal seen
            assert 0 <= progress < 1
            seen += 1
            if stop_after is not None and seen > stop_after:
                raise _Stopped
            loss: Tensor = module(torch.tensor([rng.random() for _ in range(3)])).square().sum()
            return loss

        fit("line", module, plan, loss_of, seed=1, state=state, save_every=2)
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    whole = run(tmp_path / "whole.pt", None)
    with pytest.raises(_Stopped):
        run(tmp_path / "stopped.pt", 3)
    assert torch.equal(run(tmp_path / "stopped.pt", None), whole)
    assert torch.equal(run(tmp_path / "stopped.pt", 0), whole), "a finished run is not trained again"


def test_the_captioner_trains_resumes_and_reads_its_prompts_like_its_processor(tmp_path: Path) -> None:
    model, processor = train_captioner(TINY, 5, tmp_path, width=32, layers=1)
    again, _ = train_captioner(TINY, 5, tmp_path, width=32, layers=1)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    batch = examples(Random(0), 3)
    assert len(captions_by(model, processor, batch)) == 3
    content = [{"type": "image"}, {"type": "text", "text": batch[0].prompt}]
    turn: list[Any] = [{"role": "user", "content": content}]
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    inputs = processor(images=[[Image.open(BytesIO(batch[0].image))]], text=[text], return_tensors="pt")
    ids = processor.tokenizer(captioner.prompt_text(batch[0].prompt), add_special_tokens=False)["input_ids"]
    assert inputs["input_ids"][0].tolist() == ids
    assert (inputs["pixel_values"][0].numpy() == pixels_of(batch[0].image)).all()


def test_a_voter_trains_resumes_and_is_written_for_plain_transformers(tmp_path: Path) -> None:
    recipe = VOTERS["phi"]
    model, tokenizer = train_voter("phi", recipe, TWO, 5, tmp_path)
    again, _ = train_voter("phi", recipe, TWO, 5, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    train.save(model, tokenizer, tmp_path / "phi")
    train.save(model, tokenizer, tmp_path / "phi")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["phi"]
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "phi", dtype=torch.float16)
    weight = "model.layers.0.mlp.gate_up_proj.weight"
    assert torch.equal(loaded.state_dict()[weight], model.state_dict()[weight])
    reader = AutoTokenizer.from_pretrained(tmp_path / "phi")
    turn = [{"role": "user", "content": "a b"}]
    assert reader.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) == recipe.style.prompt("a b")


def test_nothing_is_trained_on_held_out_combinations() -> None:
    for example in examples(Random(1), 80):
        assert not held_out(example.view.picture.product)
        assert example.view.picture.shown is None or not held_out(example.view.picture.shown)
    for sample in world_samples(Random(1), 80):
        assert not any(held_out(view.picture.product) for view in sample.views)


def test_questions_are_balanced_and_their_answers_follow_from_their_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = questions(Random(2), 600, {})
    assert 0.35 < sum(question.answer for question in asked) / len(asked) < 0.65
    assert {question.task for question in asked} == {"AP", "CC", "PRP", "PSI", "MPC", "SA", "SR"}
    assert all("{{caption}}" not in question.text for question in asked)
    more = questions(Random(3), 400, {"CC": 6.0})
    assert sum(q.task == "CC" for q in more) > 2 * sum(q.task == "CC" for q in asked) * 400 / 600


def test_a_faulty_caption_is_one_that_its_reader_can_notice() -> None:
    rng = Random(4)
    for sample in world_samples(rng, 150):
        for view, prompts in zip(sample.views, prompts_of(sample), strict=True):
            caption = asking._caption(rng, view, prompts.quality.text)
            named = named_in(caption).get("category")
            if named and view.picture.kind == "informative" and named != view.picture.product.category:
                assert named not in prompts.quality.text
                assert not helps(caption, view)


def test_drills_are_balanced_and_their_answers_occur_in_their_texts() -> None:
    found = list(drills(Random(5), 200, captions=0.5))
    asked = [(drill.text, *pair) for drill in found for pair in drill.asked]
    assert 0.4 < sum(answer for *_, answer in asked) / len(asked) < 0.7
    for text, words, answer in asked:
        word = named_in(words).get("category", words) if " " in words else words
        assert answer == (word in text.replace(",", "").split())


def test_the_base_reads_no_answer_to_a_task() -> None:
    style = BASE.style
    for text in readings(Random(6), 200):
        answer = text.split(style.assistant)[1]
        assert answer == "" or "shows" in answer or "product" in answer


def test_the_script_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        train.main(["--work", "x", "--models", "teacher"])
    assert raised.value.code == 2
    assert "captioner" in capsys.readouterr().err


def test_scaled_plans_keep_at_least_two_steps() -> None:
    plans = train.Plans().scaled(1e-6)
    base, captioner = plans.base, plans.captioner
    scaled = (plans.voters["phi"], base.exercises, base.comparisons, base.judgements, captioner.words, captioner.tower)
    assert {plan.steps for plan in scaled} == {2}


def test_exercises_are_the_same_in_every_process_and_contain_no_tasks_question() -> None:
    script = (
        "from random import Random; from caslie_ray.miniature._training.exercises import exercises;"
        "print(list(exercises(Random(3), 40)))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    for exercise in exercises(Random(4), 200):
        assert len(exercise.asked) == 8
        prompt = any(task.instruction[:40] in exercise.text for task in TASKS.values())
        questions = [question for question, _ in exercise.asked]
        if prompt:
            assert all(question.startswith(("Write", "Which", "Is ")) for question in questions)
            assert not any("together" in question or "Same" in question for question in questions)


def test_answers_to_exercises_are_true() -> None:
    text = (
        "A: Kivo Classic red plain mug 123\ninformation from its image: The image shows a red plain mug.\n"
        "B: Handy kettle 456\ninformation from its image: The image shows a blue kettle."
    )
    lines = lines_of(text)
    assert [(line.label, line.named.get("colour"), line.named["category"]) for line in lines] == [
        ("A", "red", "mug"), ("B", "blue", "kettle"),
    ]  # fmt: skip
    for exercise in exercises(Random(5), 300):
        held = {line.label: line for line in lines_of(exercise.text)}
        for question, answer in exercise.asked:
            if question.startswith("Which line has "):
                value = question.removeprefix("Which line has ").removesuffix("?")
                having = [line.label for line in held.values() if value in line.named.values()]
                assert [answer.split(":")[0]] == having
            elif question.startswith("Which") and "does the image of" in question:
                name, label = question.removeprefix("Which ").removesuffix(" show?").split(" does the image of ")
                assert answer == named_in(held[label].info).get(name, "none")


def test_answers_to_comparisons_are_true() -> None:
    kinds = Counter[str]()
    for exercise in comparisons(Random(6), 300):
        held = {line.label: line.named for line in lines_of(exercise.text)}
        assert len(held) == 2
        assert not any(task.instruction[:40] in exercise.text for task in TASKS.values())
        for question, answer in exercise.asked:
            first, second = held.values()
            kinds[question.split()[0]] += 1
            if question.startswith("Same "):
                name = question.split()[1]
                known = name in first and name in second
                assert answer == (("yes" if first[name] == second[name] else "no") if known else "unknown")
            elif question.startswith("In what"):
                apart = [
                    name for name in ("category", "colour", "pattern") if {name} <= first.keys() & second.keys()
                    and first[name] != second[name]
                ]  # fmt: skip
                assert answer == (" ".join(apart) or "nothing")
            elif question.startswith("Which of these"):
                asked, *offered = question.splitlines()
                label = asked.removeprefix("Which of these does ").removesuffix(" name?")
                named = {value for value in offered if value in held[label].values()}
                assert named == ({answer} if answer != "none" else set())
            elif question.startswith("Are "):
                assert answer == ("yes" if COMPLEMENTS[first["category"]] == second["category"] else "no")
    assert min(kinds[kind] for kind in ("Same", "In", "Which", "Are")) > 150


def test_answers_to_judgements_are_true_and_none_is_a_tasks_label() -> None:
    kinds, prompts = Counter[str](), 0
    labels = {label for task in TASKS.values() for label in task.labels} - {"yes", "no"}
    for exercise in judgements(Random(7), 600):
        held = {line.label: line for line in lines_of(exercise.text)}
        prompts += any(task.instruction[:40] in exercise.text for task in TASKS.values())
        assert len(dict(exercise.asked)) == len(exercise.asked) <= 6
        for question, answer in exercise.asked:
            assert answer not in labels
            kinds[question.split()[0]] += 1
            named = [held[label].named for label in held if re.search(rf"\b{label}\b", question)]
            if question.startswith(("By ", "Same ")):
                name = {"color": "colour"}.get(found := re.split(r"[ ,]", question)[1], found)
                assert len(named) == 2
                same = named[0].get("category") == named[1].get("category")
                if name not in named[0] or name not in named[1]:
                    assert answer.startswith("un")
                elif question.startswith("Same "):
                    assert answer == ("yes" if named[0][name] == named[1][name] else "no")
                else:
                    alike = named[0][name] == named[1][name]
                    assert answer == KINDS[(0 if same else 2) + (0 if alike else 1)]
            elif question.startswith("Does the image"):
                (line,) = held.values()
                wanted, shown = named_in(line.text), named_in(line.info)
                (name,) = {"colour", "pattern"} & set(wanted)
                assert answer == ("unknown" if name not in shown else "yes" if wanted[name] == shown[name] else "no")
            elif question.startswith("Which option"):
                chosen = held[answer.split(":")[0]].named["colour"]
                history = [line.named.get("colour", chosen) for label, line in held.items() if label[0].isdigit()]
                assert set(history) == {chosen}
    assert 150 < prompts < 400
    assert min(kinds[kind] for kind in ("By", "Same", "Do", "Is", "Are", "Does", "Which", "What", "Has")) > 40


def test_a_base_stopped_between_phases_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    plan = BasePlan(replace(TWO, batch=8), replace(TWO, batch=16), replace(TWO, batch=16))
    whole, _ = train_base(plan, 0, tmp_path / "whole")
    (tmp_path / "whole" / "base-comparisons.pt").unlink()
    (tmp_path / "whole" / "base-judgements.pt").unlink()
    again, _ = train_base(plan, 0, tmp_path / "whole")
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_model_with_induction_heads_copies_before_it_is_trained() -> None:
    torch.manual_seed(0)
    tokenizer = new_tokenizer(["a b c"], BASE.style, size=300)
    model = new_model(replace(BASE, vocabulary=300), tokenizer)
    ids = torch.randint(10, len(tokenizer), (16, 12))
    twice = torch.cat([ids, ids], 1)

    def copied() -> float:
        with torch.no_grad():
            said = model(input_ids=twice).logits[:, 12:-1].argmax(-1)
        return float((said == twice[:, 13:]).float().mean())

    before = copied()
    initialize_induction_heads(model)
    assert before < 0.05
    assert copied() > 0.15
