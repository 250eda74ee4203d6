"""The GPU memory that the comments of the paper's profiles tell, against the function that computes it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caslie_ray import profiles
from caslie_ray.engines._replica_memory import GIB, replica_memory
from caslie_ray.engines.memory import CARDS, Role, batch_table, memory_table, share
from caslie_ray.profiles import Model, load_profile
from tests.engines.shapes import config_of

FOLDER = Path(profiles.__file__).parent
STEP = 16384  # tokens per vLLM step on a full card, whose KV cache gets the remaining memory


def role(name: str, model: Model) -> Role:
    """A row of the table; vLLM has no class for the captioner."""
    engine = "transformers" if "Vision" in model.checkpoint else "vllm"
    return Role(name, config_of(model.checkpoint), replace(model.spec(), engine=engine))


def roles_of(profile: str) -> list[Role]:
    lineup = load_profile(profile).lineup
    base = role("base", lineup.base)
    if profile != "caslie-s":
        return [base]
    voters = {voter.name: role(voter.name, voter) for voter in lineup.voters}
    others = [voters[name] for name in ("llama-3b", "phi", "mistral", "llama-8b")]
    return [role("captioner and vision", lineup.captioner), *others, base]


def alone(one: Role) -> Role:
    return one if one.spec.engine == "transformers" else one._replace(spec=replace(one.spec, batch_tokens=STEP))


def comment_table(profile: str, head: str) -> list[list[str]]:
    """The cells of a table in a profile's comments: its head line, and the lines up to an empty comment."""
    lines = [line.strip() for line in (FOLDER / f"{profile}.yaml").read_text(encoding="utf-8").splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("#   role") and head in line)
    cells = []
    for line in lines[start:]:
        if not line.startswith("#   "):
            break
        cells.append(line.removeprefix("#").split())
    return cells


@pytest.mark.parametrize("profile", ["caslie-s", "caslie-m", "caslie-l"])
def test_every_number_of_the_memory_tables_is_the_function_s(profile: str) -> None:
    roles = roles_of(profile)
    assert comment_table(profile, "KV/token") == [line.split() for line in memory_table(roles)]
    assert comment_table(profile, "batch_tokens") == [line.split() for line in batch_table(map(alone, roles))]


@pytest.mark.parametrize("profile", ["caslie-s", "caslie-m", "caslie-l"])
def test_what_the_profiles_set_fits_a_card_of_80_gb(profile: str) -> None:
    lineup = load_profile(profile).lineup
    for model in (lineup.captioner, *lineup.voters, lineup.base):
        shared, whole = role(model.name, model), role(model.name, model.by_itself())
        least = share(replica_memory(shared.config, shared.spec), CARDS[80])
        assert least is not None, model.name
        assert least <= model.resources.gpus, model.name
        assert whole.spec.gpus == 1.0
        assert replica_memory(whole.config, whole.spec).total <= CARDS[80] * GIB, model.name
    pools = [lineup.captioner, *(one for one in lineup.voters if not one.shares_pool(lineup.captioner))]
    assert sum(model.resources.gpus for model in pools) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("profile", "card", "gpus", "batch_size", "batch_tokens", "without"),
    [
        ("caslie-s", 40, 1, 16, 32768, {"batch_size": 48}),
        ("caslie-s", 24, 2, 8, 16384, {}),
        ("caslie-s", 24, 4, 16, 32768, {"gpus": 2}),
        ("caslie-m", 24, 1, 16, 16384, {}),
        ("caslie-l", 40, 1, 16, 8192, {}),
        ("caslie-l", 24, 2, 16, 8192, {}),
    ],
)
def test_the_settings_in_comments_fit_small_cards(
    profile: str, card: int, gpus: int, batch_size: int, batch_tokens: int, without: dict[str, Any]
) -> None:
    one = roles_of(profile)[0]
    spec = replace(one.spec, gpus=float(gpus), batch_size=batch_size, batch_tokens=batch_tokens)
    assert replica_memory(one.config, spec).total <= CARDS[card] * GIB
    # What the comment changes is needed.
    assert replica_memory(one.config, replace(one.spec, **{"gpus": gpus, **without})).total > CARDS[card] * GIB
