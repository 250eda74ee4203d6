"""The order in which voters are asked."""

from pathlib import Path

from caslie_ray.profiles import load_profile
from caslie_ray.roles import call_cost, voters_by_cost


def test_voters_are_ordered_by_given_cost() -> None:
    names = [voter.name for voter in voters_by_cost(load_profile("caslie-s").lineup)]
    assert names == ["llama-3b", "phi", "mistral", "llama-8b", "vision"]


def test_voters_without_cost_are_ordered_by_their_weights_and_unknown_ones_last(tmp_path: Path) -> None:
    overrides = ["lineup.voters.0.checkpoint=hub/not-here"]
    for position, megabytes in enumerate((4, 2, 3, 1), start=1):
        folder = tmp_path / str(position)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes(megabytes * 1000))
        overrides.append(f"lineup.voters.{position}.checkpoint={folder}")
    lineup = load_profile("mini", overrides).lineup
    assert [voter.name for voter in voters_by_cost(lineup)] == [
        "phi",
        "vision",
        "mistral",
        "llama-8b",
        "llama-3b",
    ]
    assert call_cost(lineup.voters[0]) == float("inf")


def test_equal_costs_keep_the_order_of_the_profile() -> None:
    lineup = load_profile("caslie-s", [f"lineup.voters.{n}.cost=1.0" for n in range(5)]).lineup
    assert voters_by_cost(lineup) == lineup.voters
