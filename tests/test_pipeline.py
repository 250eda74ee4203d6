"""The commands and recipes of the README, run as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from caslie_ray.profiles import load_profile
from caslie_ray.storage.run import Run, open_run
from caslie_ray.tasks import TASKS
from tests.checkouts import ROOT, Checkout, checkout
from tests.engines import tiny
from tests.evaluation.browser import Page, chromium, complaints, screen
from tests.worlds import InProcess, caption_here, draw, fresh_run, profile, rows, voter

OWN = {"gift_suitability": "GS", "return_risk": "RR"}


def job(name: str, *arguments: str, limit_s: float = 280, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, str(root / "jobs" / f"{name}.py"), *arguments],
        capture_output=True, text=True, env=environment | {"PYTHONPATH": str(root)}, cwd=root, timeout=limit_s,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ask() -> InProcess:
    return InProcess()


class Piped(NamedTuple):
    """A run of the pipeline on a source with the seven tasks and two user-defined ones, and what it printed."""

    here: Checkout
    arguments: list[str]
    printed: str
    run: Run

    def table(self, heading: str) -> tuple[list[str], str]:
        """The column heads of a table in Markdown, and its text."""
        text = self.run.read_bytes(self.run.path("report/tables.md")).decode()
        found = re.search(rf"### {heading}[^\n]*\n\n(.*?)\n(?:\n|\Z)", text, re.DOTALL)
        assert found is not None, heading
        return [cell.strip() for cell in found[1].splitlines()[0].split("|")], found[1]


def pipe(root: Path, *settings: str) -> Piped:
    here = checkout(root)
    arguments = ["--profile", "mini", "--run", str(here.root / "run"), "--source", str(here.source)]
    arguments += [word for setting in settings for word in ("--set", setting)]
    done = job("pipeline", *arguments, limit_s=600, root=here.root)
    assert done.returncode == 0, done.stderr[-3000:]
    return Piped(here, arguments, done.stdout, open_run(str(here.root / "run")))


@pytest.fixture(scope="module")
def piped(tmp_path_factory: pytest.TempPathFactory) -> Piped:
    return pipe(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Piped:
    """With captions of the data set, one voter, and nothing to train."""
    voters = f"lineup.voters={json.dumps([voter('llama-3b')])}"
    return pipe(tmp_path_factory.mktemp("short"), voters, "captions.source=dataset", "training.variants=[]")


@pytest.mark.timeout(1300)
def test_the_pipeline_from_a_source_to_instructions_and_again(piped: Piped) -> None:
    run = piped.run
    samples, views = rows(run, "samples"), rows(run, "views")
    drawn = [row for row in samples if row["task"] not in OWN]
    assert len(drawn) == sum(2 + 1 + (task.code not in ("PSI", "MPC")) for task in TASKS.values())
    assert [row["view_id"] for row in rows(run)] == [row["view_id"] for row in views]
    instructions = run.read("instructions").to_pylist()
    assert len(instructions) == 3 * len(samples)
    assert {row["variant"] for row in instructions} == {"caslie", "uia", "text"}
    for name in ("ingest", "caption", "fuse", "train", "predict", "evaluate", "pipeline"):
        assert run.read_json(f"summary/{name}.json")["job"] == name
    assert "caption used" in piped.printed
    tested = [row["sample_id"] for row in samples if row["split"] in ("ind", "ood")]
    variants = {row["variant"] for row in run.read("predictions").to_pylist()}
    assert variants == {"text", "uia", "caslie"}
    assert len(run.read("predictions")) == len(variants) * len(tested)
    metrics = run.read_json("report/metrics.json")
    assert {row["variant"] for row in metrics if row["primary"]} == variants
    assert "caslie exceeds by" in piped.printed
    assert f"page             {run.path('report/index.html')}" in piped.printed
    assert Path(run.path("report/index.html")).stat().st_size > 10_000
    again = job("pipeline", *piped.arguments, limit_s=600, root=piped.here.root)
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stdout.count("nothing to do") == 3 + len(variants), again.stdout


def test_the_short_pipeline_ends_with_a_page(short: Piped) -> None:
    run = short.run
    assert [row["view_id"] for row in rows(run)] == [row["view_id"] for row in rows(run, "views")]
    assert {row["task"] for row in rows(run, "samples")} >= set(OWN)
    assert {row["variant"] for row in run.read("instructions").to_pylist()} == {"caslie", "uia", "text"}
    for name in ("ingest", "caption", "fuse", "evaluate", "pipeline"):
        assert run.read_json(f"summary/{name}.json")["job"] == name
    assert "caption used" in short.printed
    assert Path(run.path("report/index.html")).stat().st_size > 10_000


def test_every_job_supports_user_defined_tasks(piped: Piped) -> None:
    """The README's example of an eighth task, in the place that the README names, and a ninth with its own metric."""
    run = piped.run
    assert not rows(run, "rejects")
    samples = [row for row in rows(run, "samples") if row["task"] in OWN]
    assert len(samples) == 14
    views = {row["view_id"] for row in rows(run, "views") if row["task"] in OWN}
    captions = [row for row in rows(run) if row["view_id"] in views]
    assert len(captions) == len(views) == len(samples)
    assert all(row["votes"] for row in captions)
    ids = {row["sample_id"] for row in samples}
    tested = {row["sample_id"] for row in samples if row["split"] in ("ind", "ood")}
    variants = ("caslie", "text", "uia")
    for table, wanted in (("instructions", ids), ("predictions", tested)):
        found = {(row["sample_id"], row["variant"]) for row in run.read(table).to_pylist() if row["sample_id"] in ids}
        assert found == {(sample_id, variant) for sample_id in wanted for variant in variants}
    assert set(OWN) <= set(run.read_json("summary/ingest.json")["samples_by_task"])
    assert set(OWN) <= set(run.read_json("summary/caption.json")["captions_used"]["by_task"])
    results = run.read_json("summary/evaluate.json")["results"]["unim3"]
    for split in ("ind", "ood"):
        assert set(OWN.values()) <= set(results[split]["mean_primary"]["caslie"]["by_task"])
    assert re.search(r"caption used .* GS \d+% · RR \d+%", piped.printed)


def test_user_defined_tasks_have_intervals_and_tables(piped: Piped) -> None:
    run = piped.run
    metrics = run.read_json("report/metrics.json")
    measures = {
        "gift_suitability": {"accuracy", "recall", "precision", "f1"},
        "return_risk": {"accuracy", "balanced_accuracy"},
    }
    for name, wanted in measures.items():
        mine = [row for row in metrics if row["task"] == name]
        assert {row["metric"] for row in mine} == wanted
        assert len(mine) == len(wanted) * 3 * 2  # variants and splits
        assert all(row["low"] <= row["value"] <= row["high"] for row in mine)
    for code in OWN.values():
        assert {f"IND {code}", f"OOD {code}"} <= set(piped.table("Table 4: ")[0])
        assert code in piped.table("Table 6: ")[0]
    assert "IND F1" in piped.table("GS, all metrics")[0]
    assert "IND BAcc" in piped.table("RR, all metrics")[0]
    assert "paper" not in piped.table("RR, all metrics")[1]
    assert "The paper has no figures of GS, RR" in run.read_bytes(run.path("report/tables.md")).decode()
    assert r"\caption{RR, all metrics}" in run.read_bytes(run.path("report/tables.tex")).decode()


def test_the_page_shows_user_defined_tasks(piped: Piped, tmp_path: Path) -> None:
    run = piped.run
    with chromium(tmp_path / "chromium") as chrome:
        screen(chrome, 1280, 1000)
        page = Page(chrome, tmp_path).open(run.read_bytes(run.path("report/index.html")).decode())
        headings = page.texts("#figures h2")
        for name, code in OWN.items():
            page.select("task", code)
            shown = set(page.run("[...document.querySelectorAll('#cards .card')].map((card) => card.dataset.view)"))
            assert shown == {row["view_id"] for row in rows(run, "views") if row["task"] == name}
            assert f"{code}, all metrics" in headings
            assert f"{code}, in domain: confusion matrix" in headings
        assert "IND BAcc" in page.texts(".grid th")
        assert complaints(chrome) == []


def test_a_plan_lists_the_models_of_user_defined_tasks(short: Piped) -> None:
    arguments = [*short.arguments, "training.variants=[caslie]", "experiments.task_specific=true", "--plan"]
    planned = job("pipeline", *arguments, root=short.here.root)
    assert planned.returncode == 0, planned.stderr[-2000:]
    assert {"task-specific-GS", "task-specific-RR"} <= set(planned.stdout.split())


@pytest.mark.timeout(2400)
def test_every_experiment_supports_user_defined_tasks(piped: Piped) -> None:
    settings = [
        "votes.schedule=full", "experiments.task_specific=true", "experiments.context_free=true",
        "experiments.shuffled=true", "experiments.verdict_only=true",
        "experiments.voter_sets=[[phi], [llama-8b, vision, mistral]]",
        "training.epochs=1", f"evaluation.truth={piped.here.source.parent}/truth", "evaluation.context_free=true",
    ]  # fmt: skip
    done = job("pipeline", *piped.arguments, "--set", *settings, limit_s=2000, root=piped.here.root)
    assert done.returncode == 0, done.stderr[-3000:]
    for number in ("4", "5", "6", "A3", "A4"):
        heads = {head.split()[-1] for head in piped.table(f"Table {number}: ")[0] if head}
        assert set(OWN.values()) <= heads, number


def test_a_plan_of_an_empty_run_starts_nothing(tmp_path: Path) -> None:
    planned = job("pipeline", "--run", str(tmp_path / "run"), "--plan")
    assert planned.returncode == 0, planned.stderr[-2000:]
    assert not (tmp_path / "run").exists()
    for role in ("captioner", *(one.name for one in load_profile("mini").lineup.voters), "unim3"):
        assert re.search(rf"^  {role} +transformers$", planned.stdout, re.MULTILINE), planned.stdout
    missing = job("caption", "--run", str(tmp_path / "run"))
    assert missing.returncode == 1
    assert "run ingest first" in missing.stderr


def test_add_a_voter(world: Path, tmp_path: Path, ask: InProcess) -> None:
    """The profile in the README of profiles, with its voter played by a checkpoint of the miniature world."""
    text = (ROOT / "caslie_ray" / "profiles" / "README.md").read_text()
    block = re.search(r"```yaml\n# mine.yaml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    path = tmp_path / "mine.yaml"
    path.write_text(block[1].replace("path/to/checkpoint", "miniature:voter-mistral"))
    run = fresh_run(world, tmp_path / "run")
    two = [voter.model_dump(exclude_defaults=True) for voter in load_profile(str(path)).lineup.voters[:2]]
    caption_here(run, profile(two[0]), ask)
    calls = caption_here(run, load_profile(str(path)), ask)
    assert "captioner" not in calls
    assert calls["mine"] <= len(rows(run))
    assert {vote["voter"] for row in rows(run) for vote in row["votes"]} == {"llama-3b", "phi", "mine"}


@pytest.mark.parametrize("family", ["llava", "blip2"])
def test_swap_the_captioner(world: Path, tmp_path: Path, ask: InProcess, family: str) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption_here(run, profile(settings=["votes.rule=always"]), ask)
    before = {row["view_id"]: row["caption_key"] for row in rows(run)}
    other = tiny.build(family, tmp_path / family)
    settings = ["votes.rule=always", f"lineup.captioner.checkpoint={other}", "lineup.captioner.context=400"]
    calls = caption_here(run, profile(settings=[*settings, "lineup.captioner.max_new_tokens=8"]), ask)
    after = {row["view_id"]: row["caption_key"] for row in rows(run)}
    assert before.keys() == after.keys()
    assert all(before[view] != after[view] for view in after)
    images = {row["image_id"] for row in rows(run)}
    # BLIP-2 takes no instructions, so it captions an image once, whatever the context.
    assert calls["captioner"] == (len(images) if family == "blip2" else len({*after.values()}))


def test_a_profile_for_real_data_requires_a_source(tmp_path: Path) -> None:
    done = job("ingest", "--run", str(tmp_path / "run"), "--set", "miniature.draw=false")
    assert done.returncode == 1
    assert "reads real data: give it with --source" in done.stderr
    assert not (tmp_path / "run").exists()


def test_evaluate_without_captions_names_the_command_to_run(tmp_path: Path) -> None:
    done = job("evaluate", "--run", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "run caption first" in done.stderr


@pytest.mark.vllm
def test_a_plan_names_the_engine_of_the_base_before_any_work(tmp_path: Path) -> None:
    settings = ["--run", str(tmp_path / "run"), "--set", "lineup.base.checkpoint=miniature:voter-qwen"]
    chosen = job("pipeline", *settings, "--plan", "--set", "lineup.base.engine=auto")
    assert chosen.returncode == 0, chosen.stderr[-2000:]
    assert re.search(r"^  unim3 +transformers · vLLM .* cannot adapt lm_head of Qwen2For", chosen.stdout, re.MULTILINE)
    source = draw(tmp_path / "source")
    named = job("pipeline", *settings, "--set", "lineup.base.engine=vllm", "--source", str(source))
    assert named.returncode == 1
    assert "cannot adapt lm_head of Qwen2ForCausalLM; set engine: auto or engine: transformers" in named.stderr
    assert not (tmp_path / "run").exists()
