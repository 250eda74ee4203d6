"""Probabilities of options that begin with the same words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from caslie_ray.serving._probabilities import SameOptions, option_probabilities

# The next word after each beginning, with its share.
WORDS = {"": {"very": 0.5, "positive": 0.3, "neutral": 0.2}, "very": {"positive": 0.9, "negative": 0.1}}


async def choose(prefix: str, choices: Sequence[str]) -> list[float]:
    shares = [WORDS[prefix][choice.split()[0]] for choice in choices]
    return [share / sum(shares) for share in shares]


def test_options_share_the_probability_of_their_first_words() -> None:
    options = ["very positive", "positive", "neutral", "very negative"]
    found = asyncio.run(option_probabilities(options, choose))
    assert found == pytest.approx([0.45, 0.3, 0.2, 0.05])


def test_words_that_all_share_are_asked_nothing() -> None:
    found = asyncio.run(option_probabilities(["very positive", "very negative"], choose))
    assert found == pytest.approx([0.9, 0.1])
    assert asyncio.run(option_probabilities(["positive"], choose)) == [1.0]


@pytest.mark.parametrize("options", [["very", "very positive"], ["positive", "Positive "], ["", "positive"]])
def test_options_that_words_do_not_tell_apart(options: list[str]) -> None:
    with pytest.raises(SameOptions):
        asyncio.run(option_probabilities(options, choose))


@pytest.mark.parametrize(
    ("task", "fields", "options"),
    [
        ("SA", {"review": "It broke."}, ["very positive", "positive", "neutral", "negative", "very negative"]),
        ("PRP", {"product 1": "A red mug.", "product 2": "A blue mug."}, ["also buy", "also view", "similar"]),
    ],
)
def test_every_option_has_its_probability(
    client: httpx.Client, task: str, fields: dict[str, str], options: list[str]
) -> None:
    answer = client.post("/v1/predict", json={"task": task, "fields": fields, "options": options}).json()
    assert answer["probabilities"] is not None, answer
    assert [one["option"] for one in answer["probabilities"]] == options
    assert sum(one["probability"] for one in answer["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert all(one["probability"] > 0 for one in answer["probabilities"])
