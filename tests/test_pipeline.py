"""The README's commands, run as a user runs them, and its three recipes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from caslie_ray.profiles import load_profile
from caslie_ray.runs import open_run
from caslie_ray.tasks import TASKS
from tests.engines import tiny
from tests.worlds import InProcess, caption_here, draw, fresh_run, profile, rows

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def job(name: str, *arguments: str, limit_s: float = 280) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *arguments],
        capture_output=True, text=True, env=environment, timeout=limit_s, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ask() -> InProcess:
    return InProcess()


@pytest.mark.timeout(1300)
def test_the_pipeline_from_a_source_to_instructions_and_again(tmp_path: Path) -> None:
    source = draw(tmp_path / "source")
    arguments = ["--profile", "mini", "--run", str(tmp_path / "run"), "--source", str(source)]
    first = job("pipeline", *arguments, limit_s=600)
    assert first.returncode == 0, first.stderr[-2000:]
    run = open_run(str(tmp_path / "run"))
    samples, views = rows(run, "samples"), rows(run, "views")
    assert len(samples) == sum(2 + 1 + (task.code not in ("PSI", "MPC")) for task in TASKS.values())
    assert [row["view_id"] for row in rows(run)] == [row["view_id"] for row in views]
    instructions = run.read("instructions").to_pylist()
    assert len(instructions) == 3 * len(samples)
    assert {row["variant"] for row in instructions} == {"caslie", "uia", "text"}
    for name in ("ingest", "caption", "fuse", "train", "predict", "evaluate", "pipeline"):
        assert run.read_json(f"summary/{name}.json")["job"] == name
    assert "caption used" in first.stdout
    tested = [row["sample_id"] for row in samples if row["split"] in ("ind", "ood")]
    variants = {row["variant"] for row in run.read("predictions").to_pylist()}
    assert variants == {"text", "uia", "caslie"}
    assert len(run.read("predictions")) == len(variants) * len(tested)
    metrics = run.read_json("report/metrics.json")
    assert {row["variant"] for row in metrics if row["primary"]} == variants
    assert "caslie exceeds by" in first.stdout
    assert f"page             {run.path('report/index.html')}" in first.stdout
    assert Path(run.path("report/index.html")).stat().st_size > 10_000
    again = job("pipeline", *arguments, limit_s=600)
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stdout.count("nothing to do") == 3 + len(variants), again.stdout


def test_a_plan_of_an_empty_run_starts_nothing(tmp_path: Path) -> None:
    planned = job("pipeline", "--run", str(tmp_path / "run"), "--plan")
    assert planned.returncode == 0, planned.stderr[-2000:]
    assert not (tmp_path / "run").exists()
    for role in ("captioner", *(voter.name for voter in load_profile("mini").lineup.voters), "unim3"):
        assert re.search(rf"^  {role} +transformers$", planned.stdout, re.MULTILINE), planned.stdout
    missing = job("caption", "--run", str(tmp_path / "run"))
    assert missing.returncode == 1
    assert "run ingest first" in missing.stderr


def test_the_readme_names_jobs_profiles_and_settings_that_exist(tmp_path: Path) -> None:
    for name in re.findall(r"jobs/(\w+)\.py", README):
        assert (ROOT / "jobs" / f"{name}.py").is_file(), name
    for setting in re.findall(r"--set ([\w.]+=[\w./:-]+)", README):
        if "=path" not in setting and setting != "key=value":
            load_profile("mini", [setting])
    for name in re.findall(r"`(mini|smol|measure|caslie-[sml])`", README):
        load_profile(name)


def test_add_a_voter(world: Path, tmp_path: Path, ask: InProcess) -> None:
    """The README's profile, with its voter played by a checkpoint of the miniature world."""
    block = re.search(r"```yaml\n# mine.yaml\n(.*?)```", README, re.DOTALL)
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


def test_a_profile_for_real_data_draws_no_world(tmp_path: Path) -> None:
    done = job("ingest", "--run", str(tmp_path / "run"), "--set", "miniature.draw=false")
    assert done.returncode == 1
    assert "reads real data: name it with --source" in done.stderr
    assert not (tmp_path / "run").exists()


def test_evaluate_before_there_is_anything(tmp_path: Path) -> None:
    done = job("evaluate", "--run", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "run caption first" in done.stderr


@pytest.mark.vllm
def test_a_plan_says_before_anything_is_paid_for_what_the_base_answers_on(tmp_path: Path) -> None:
    settings = ["--run", str(tmp_path / "run"), "--set", "lineup.base.checkpoint=miniature:voter-qwen"]
    chosen = job("pipeline", *settings, "--plan", "--set", "lineup.base.engine=auto")
    assert chosen.returncode == 0, chosen.stderr[-2000:]
    assert re.search(r"^  unim3 +transformers · vLLM .* cannot adapt lm_head of Qwen2For", chosen.stdout, re.MULTILINE)
    source = draw(tmp_path / "source")
    named = job("pipeline", *settings, "--set", "lineup.base.engine=vllm", "--source", str(source))
    assert named.returncode == 1
    assert "cannot adapt lm_head of Qwen2ForCausalLM; set engine: auto or engine: transformers" in named.stderr
    assert not (tmp_path / "run").exists()
