"""The profiles that come with the package say what the paper says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from caslie_ray import profiles
from caslie_ray.profiles import Captioner, Lineup, Model, Profile, load_profile, profile_names

FOLDER = Path(profiles.__file__).parent
NAMES = ("caslie-l", "caslie-m", "caslie-s", "measure", "mini", "smol", "voters")
PAPER = ("caslie-s", "caslie-m", "caslie-l")


def roles(lineup: Lineup) -> tuple[Model, ...]:
    return (lineup.captioner, *lineup.voters, lineup.base)


def test_these_profiles_are_shipped() -> None:
    assert profile_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_loads_under_its_own_name(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert load_profile(str(FOLDER / f"{name}.yaml")) == profile


@pytest.mark.parametrize("name", NAMES)
def test_a_readme_opens_with_commands_that_use_it(name: str) -> None:
    opening = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
    commands = re.findall(r"^#   python (jobs/\w+\.py) +--profile (\S+)", opening, flags=re.MULTILINE)
    assert len(commands) >= 2
    assert {profile for _, profile in commands} == {name}


def test_mini_states_every_setting_but_the_optional_ones_of_a_model() -> None:
    document = yaml.safe_load((FOLDER / "mini.yaml").read_text(encoding="utf-8"))
    assert set(document) == set(Profile.model_fields)
    assert set(document["lineup"]["captioner"]) == set(Model.model_fields)
    for key, field in Profile.model_fields.items():
        if key not in ("name", "schedule", "lineup", "contexts"):
            group = field.get_default()
            assert set(document[key]) == set(type(group).model_fields), key


@pytest.mark.parametrize("name", PAPER)
def test_captions_are_as_short_as_the_authors(name: str) -> None:
    profile = load_profile(name)
    assert profile.lineup.captioner.max_new_tokens == 128
    assert profile.captions.words == 50
    assert profile.lineup.base.max_new_tokens == 64
    assert Captioner.model_fields["max_new_tokens"].default == 128
    assert load_profile("mini").captions.words is None


def test_mini_runs_on_two_cores_without_gpu_or_hub() -> None:
    lineup = load_profile("mini").lineup
    assert all(model.checkpoint.startswith("miniature:") for model in roles(lineup))
    assert all(model.device == "cpu" and model.dtype == "float32" for model in roles(lineup))
    assert sum(model.resources.cpus * (model.pool.max or 99) for model in (lineup.captioner, *lineup.voters)) < 2


def test_smol_has_one_voter_that_is_also_the_base() -> None:
    lineup = load_profile("smol").lineup
    assert [voter.checkpoint for voter in lineup.voters] == ["smollm2"]
    assert lineup.base.checkpoint == "smollm2"
    assert lineup.captioner == load_profile("mini").lineup.captioner


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_captioner_and_voters(name: str) -> None:
    lineup = load_profile(name).lineup
    assert lineup.captioner.checkpoint == "meta-llama/Llama-3.2-11B-Vision-Instruct"
    assert {voter.checkpoint for voter in lineup.voters} == {
        "meta-llama/Llama-3.2-3B-Instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "microsoft/Phi-3.5-mini-instruct",
    }
    assert [voter.name for voter in lineup.voters if voter.shares_pool(lineup.captioner)] == ["vision"]
    assert all(model.revision and model.device == "cuda" for model in roles(lineup))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("caslie-s", "meta-llama/Llama-3.2-3B-Instruct"),
        ("caslie-m", "mistralai/Mistral-7B-Instruct-v0.3"),
        ("caslie-l", "meta-llama/Llama-2-13b-chat-hf"),
    ],
)
def test_the_paper_s_bases(name: str, base: str) -> None:
    assert load_profile(name).lineup.base.checkpoint == base


@pytest.mark.parametrize("name", PAPER)
def test_sizes_share_captions_and_votes(name: str) -> None:
    small, other = load_profile("caslie-s").lineup, load_profile(name).lineup
    assert (other.captioner, other.voters) == (small.captioner, small.voters)


@pytest.mark.parametrize("name", PAPER)
def test_hyperparameters_of_appendix_d(name: str) -> None:
    training = load_profile(name).training
    assert (training.learning_rate, training.global_batch, training.epochs) == (1e-4, 128, 3)
    assert (training.warmup, training.decay) == (0.05, "cosine")
    assert (training.lora.rank, training.lora.alpha) == (16, 16)
    assert training.lora.targets[-1] == "lm_head"
    assert len(training.lora.targets) == 8


def test_reading_a_profile_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys; from caslie_ray.profiles import load_profile; load_profile('mini'); "
        "print({'ray', 'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
