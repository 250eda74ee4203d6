"""Counts of views whose truth is given here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from random import Random
from typing import Any

import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

from caslie_ray.evaluation.captions import truth_counts as counts
from caslie_ray.evaluation.captions.counts import count_agreement
from caslie_ray.evaluation.captions.summary import describe
from caslie_ray.evaluation.captions.sums import Sums
from caslie_ray.hashing import content_id
from caslie_ray.miniature.catalogue import Look
from caslie_ray.miniature.drawing import Kind, Picture
from caslie_ray.miniature.truth import ViewTruth
from caslie_ray.quality import fleiss_kappa

HAMMER = Look("hammer", "red", "striped", "large", "Norde")
MUG = Look("mug", "blue", "plain", "small", "Kivo")


def view(
    kind: Kind = "informative", asks: Sequence[str] = ("colour",), lacks: Sequence[str] = ("colour",)
) -> ViewTruth:
    shown = {"informative": HAMMER, "wrong": MUG}.get(kind)
    return ViewTruth(Picture(kind, HAMMER, shown, 0), tuple(asks), tuple(lacks), "")


def row(caption: str, verdict: bool, **answers: str) -> dict[str, Any]:
    return {"caption": caption, "verdict": verdict, "votes": [{"voter": k, "answer": v} for k, v in answers.items()]}


def test_an_asked_attribute_is_right_wrong_or_not_named() -> None:
    sums = Sums()
    for number, caption in enumerate(("The image shows a red hammer.", "A blue hammer.", "A hammer.")):
        counts.count_caption(sums, content_id(str(number)), view(), caption, ["SA", "ind"])
    assert sums.total("caption/informative/asked") == 3
    assert sums.total("caption/informative/asked and right") == 1
    assert sums.total("caption/informative/SA/asked and right") == 1
    assert sums.total("caption/informative/colour/named") == 2
    assert sums.total("caption/informative/colour/named rightly") == 1
    assert sums.total("error/attribute missing") == 1
    assert sums.total("error/attribute hallucination") == 1


def test_attributes_that_no_image_shows_are_not_expected_in_captions() -> None:
    sums = Sums()
    counts.count_caption(sums, "0", view(asks=("weight",)), "A hammer. Its weight cannot be seen.", [])
    assert sums.total("caption/informative/asked") == 0
    assert sums.total("error/attribute missing") == 0


def test_a_described_placeholder_is_a_hallucination() -> None:
    sums = Sums()
    counts.count_caption(sums, "0", view("placeholder"), "A red hammer.", [])
    counts.count_caption(sums, "1", view("placeholder"), "No product can be seen.", [])
    assert sums.total("caption/placeholder/described as a product") == 1
    assert sums.total("error/attribute hallucination") == 1


def test_the_caption_of_a_wrong_image_is_compared_with_what_it_shows() -> None:
    sums = Sums()
    counts.count_caption(sums, "0", view("wrong"), "A blue mug.", [])
    assert sums.total("caption/wrong/asked and right") == 1
    assert sums.total("caption/informative/views") == 0


def test_lost_and_kept_captions_are_counted() -> None:
    sums = Sums()
    cases = (("A red hammer.", True), ("A red hammer.", False), ("A blue mug.", True), ("A blue mug.", False))
    for number, (caption, verdict) in enumerate(cases):
        counts.count_verdict(sums, content_id(str(number)), view(), row(caption, verdict), ["CC"], ())
    assert sums.total("views with a caption/helps") == 2
    assert sums.total("error/helpful caption missing") == 1
    assert sums.total("error/unhelpful caption used") == 1
    assert sums.total("verdict/CC/helps/yes") == 1
    assert not sums.names("voter/")


def test_a_context_free_caption_is_compared_on_informative_images_only() -> None:
    sums = Sums()
    counts.count_context_free(sums, "0", view(), "A red hammer.", "A large hammer.")
    counts.count_context_free(sums, "1", view("wrong"), "A blue mug.", "A small mug.")
    counts.count_context_free(sums, "2", view(asks=("weight",)), "A hammer.", "A hammer.")
    assert sums.total("context/views") == 1
    figures = describe(_with_known(sums), (), 20)["truth"]["context"]
    assert figures["conditioned"]["asked_and_right"]["value"] == 1
    assert figures["free"]["asked_and_right"]["value"] == 0
    assert figures["gap"]["value"] == 1


def _with_known(sums: Sums) -> Sums:
    for name in ("known", "views"):
        sums.add(name, "0")
    return sums


@pytest.fixture(scope="module")
def votes() -> list[tuple[bool, dict[str, str]]]:
    """Whether a caption helps, and how three voters of differing quality answer."""
    rng = Random(0)
    found = []
    for _ in range(400):
        helps = rng.random() < 0.4
        right = {name: rng.random() < share for name, share in (("a", 0.9), ("b", 0.8), ("c", 0.7))}
        found.append((helps, {name: "yes" if helps == ok else "no" for name, ok in right.items()}))
    return found


def test_figures_match_scikit_learn(votes: list[tuple[bool, dict[str, str]]]) -> None:
    sums = Sums()
    verdicts = []
    for number, (helps, answers) in enumerate(votes):
        image = content_id(str(number))
        verdict = list(answers.values()).count("yes") >= 2
        verdicts.append(verdict)
        found = row("A red hammer." if helps else "A blue mug.", verdict, **answers)
        count_agreement(sums, image, found["votes"])
        counts.count_verdict(sums, image, view(), found, [], (("a", "b", "c"), ("b",)))
        sums.add("known", image)
        sums.add("views", image)
    figures = describe(sums, (("a", "b", "c"), ("b",)), 200)
    truth = [helps for helps, _ in votes]
    said = {name: [answers[name] == "yes" for _, answers in votes] for name in "abc"}
    judged = figures["truth"]["verdicts"]
    for name in "abc":
        expected = balanced_accuracy_score(truth, said[name])
        assert judged["voters"][name]["balanced_accuracy"]["value"] == pytest.approx(expected, abs=1e-6)
    majority, single = judged["majorities"]
    expected = balanced_accuracy_score(truth, verdicts)
    assert majority["balanced_accuracy"]["value"] == pytest.approx(expected, abs=1e-6)
    assert judged["verdict"]["balanced_accuracy"] == majority["balanced_accuracy"]
    assert single["balanced_accuracy"] == judged["voters"]["b"]["balanced_accuracy"]
    assert judged["use_it_always"]["balanced_accuracy"]["value"] == 0.5
    mean = sum(balanced_accuracy_score(truth, said[name]) for name in "abc") / 3
    assert majority["mean_voter"]["value"] == pytest.approx(mean, abs=1e-6)
    assert majority["above_the_mean_voter"]["value"] == pytest.approx(expected - mean, abs=1e-6)
    agreement = figures["agreement"]
    pairs = {tuple(pair["voters"]): pair for pair in agreement["pairs"]}
    for one, other in combinations("abc", 2):
        kappa = cohen_kappa_score(said[one], said[other])
        assert pairs[one, other]["cohen_kappa"]["value"] == pytest.approx(kappa, abs=1e-6)
        differ = sum(x != y for x, y in zip(said[one], said[other], strict=True)) / len(truth)
        assert pairs[one, other]["disagreement"]["value"] == pytest.approx(differ, abs=1e-6)
    tallies = [(list(answers.values()).count("yes"), list(answers.values()).count("no")) for _, answers in votes]
    assert agreement["fleiss_kappa"]["value"] == pytest.approx(fleiss_kappa(tallies), abs=1e-6)
    lost = sum(h and not v for h, v in zip(truth, verdicts, strict=True)) / sum(truth)
    assert judged["verdict"]["helpful_lost"]["value"] == pytest.approx(lost, abs=1e-6)


def test_a_failed_voter_is_excluded_from_what_it_could_not_answer() -> None:
    sums = Sums()
    votes: list[dict[str, Any]] = [{"voter": "a", "answer": "yes"}, {"voter": "b", "answer": None}]
    count_agreement(sums, "0", votes)
    assert sums.total("voter/a/votes") == 1
    assert sums.total("voter/b/votes") == 0
    assert sums.total("all voted") == 0
    assert not sums.names("pair/")


def test_a_voter_that_always_fails_does_not_affect_the_figures_of_others() -> None:
    sums = Sums()
    for number in range(20):
        votes = [{"voter": "a", "answer": "yes"}, {"voter": "b", "answer": "yes" if number % 4 else "no"}]
        sums.add("views", content_id(str(number)))
        failed: list[dict[str, Any]] = [{"voter": "c", "answer": None}]
        count_agreement(sums, content_id(str(number)), votes + failed)
    agreement = describe(sums, (), 50)["agreement"]
    assert agreement["views"] == 20
    assert agreement["mean_pairwise_disagreement"]["value"] == 0.25
    assert agreement["mean_pairwise_disagreement"]["n"] == 20
    assert agreement["fleiss_kappa"]["value"] is None


def test_wrong_products_are_no_missing_attributes() -> None:
    sums = Sums()
    counts.count_caption(sums, "0", view("wrong"), "A mug.", [])
    assert sums.total("error/attribute missing") == 0
