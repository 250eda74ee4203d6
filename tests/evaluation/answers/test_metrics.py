"""Metrics and their intervals, compared with scikit-learn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support, recall_score

from caslie_ray.evaluation.answers import metrics
from caslie_ray.evaluation.answers.metrics import difference, mean_of, metric_rows, score
from caslie_ray.evaluation.answers.outcomes import FAILED, Outcomes
from caslie_ray.evaluation.answers.results import Results
from caslie_ray.evaluation.answers.tables import tables_of
from caslie_ray.tasks import TASKS, Confusion, Metrics, Task, Values, find_task, metric, share
from tests.evaluation.answers.made_up import Given, answered, cell


def scikit_learns(task: Task, truth: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """The metrics of a task, computed by scikit-learn."""
    accuracy = accuracy_score(truth, answers)
    if not task.labels:
        return {"recall_at_1": accuracy}
    (first, *_), prefix = task.labels, "macro_" if "macro_f1" in task.metrics.titles else ""
    chosen, average = (list(task.labels), "macro") if prefix else ([first], "micro")
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, answers, labels=chosen, average=average, zero_division=0.0
    )
    return {"accuracy": accuracy, f"{prefix}recall": recall, f"{prefix}precision": precision, f"{prefix}f1": f1}


def redrawn(task: Task, given: Given, resamples: int) -> Iterator[tuple[list[str], list[str]]]:
    """The bootstrap's resamples of truth and answers, drawn by the same generator."""
    seed = int.from_bytes(hashlib.sha256(f"{task.name} ind".encode()).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        taken = rng.integers(0, len(given.truth), len(given.truth)).tolist()
        yield [given.truth[i] for i in taken], [given.answers[i] for i in taken]


@pytest.mark.parametrize("code", [task.code for task in TASKS.values()])
def test_values_and_resampled_values_match_scikit_learn(code: str) -> None:
    task, given = find_task(code), answered(code, 0.6)
    found = score(cell(code), given.outcomes, 5)
    assert found.values == pytest.approx(scikit_learns(task, given.truth, given.answers))
    for at, resample in enumerate(redrawn(task, given, 5)):
        assert {name: draws[at] for name, draws in found.draws.items()} == pytest.approx(scikit_learns(task, *resample))


@metric("MCC")
def matthews(of: Confusion) -> Values:
    """Matthews correlation, in which an answer that cannot be parsed is a class of its own."""
    true, answered = of.counts.sum(-1), of.counts.sum(-2)
    covariance = of.hits.sum(-1) * of.total - (true * answered).sum(-1)
    return np.asarray(covariance / np.sqrt((of.total**2 - (true**2).sum(-1)) * (of.total**2 - (answered**2).sum(-1))))


@metric("Bal")
def balanced_accuracy(of: Confusion) -> Values:
    return np.asarray(share(of.hits, of.true).mean(-1))


@pytest.mark.parametrize("code", ["AP", "SA"])
def test_a_new_metric_is_one_function(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = replace(find_task(code), metrics=Metrics("matthews", (matthews, balanced_accuracy)))
    monkeypatch.setitem(TASKS, task.name, task)
    given = answered(code, 0.6)
    found = score(cell(code), given.outcomes, 5)
    labels = list(task.labels)

    def expected(truth: list[str], answers: list[str]) -> dict[str, float]:
        recalls = recall_score(truth, answers, labels=labels, average="macro", zero_division=0.0)
        return {"matthews": matthews_corrcoef(truth, answers), "balanced_accuracy": recalls}

    assert found.values == pytest.approx(expected(given.truth, given.answers))
    for at, resample in enumerate(redrawn(task, given, 5)):
        assert {name: draws[at] for name, draws in found.draws.items()} == pytest.approx(expected(*resample))
    (detailed,) = (table for table in tables_of(Results([found], {})) if table.title == f"{code}, all metrics")
    assert detailed.columns[2:] == ("IND MCC", "IND Bal", "IND #Failed")
    assert [row["primary"] for row in metric_rows([found])] == [True, False]


def test_a_metric_of_nothing_is_zero() -> None:
    silent = score(cell("AP"), Given("AP", ["no", "no"], ["no", "no"]).outcomes, 10)
    assert silent.interval("f1") == (0.0, 0.0, 0.0)
    assert matthews(Confusion.of(["no"], ["no"], ["yes", "no"])) == 0.0


def test_a_metric_that_does_not_give_a_value_per_matrix_is_refused_at_once() -> None:
    @metric("Hits")
    def all_hits(of: Confusion) -> Values:
        return np.asarray(of.hits.sum())

    with pytest.raises(ValueError, match=r"metric 'all_hits' returned shape \(\).*reduce the last axes only"):
        replace(find_task("AP"), metrics=Metrics("all_hits", (all_hits,)))


def test_metrics_need_different_names() -> None:
    with pytest.raises(ValueError, match="need names of their own"):
        Metrics("matthews", (matthews, matthews))
    with pytest.raises(ValueError, match="the primary metric 'f1' is none of matthews"):
        Metrics("f1", (matthews,))


def test_many_labels_are_resampled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    given = answered("SA", 0.6)
    at_once = score(cell("SA"), given.outcomes, 50).draws
    monkeypatch.setattr(metrics, "_CHUNK_CELLS", 100)
    for name, draws in score(cell("SA"), given.outcomes, 50).draws.items():
        assert draws.tolist() == at_once[name].tolist()


def test_an_interval_has_its_nominal_coverage() -> None:
    covered = sum(
        low <= 0.7 <= high
        for seed in range(100)
        for _, low, high in [score(cell("CC"), answered("CC", 0.7, count=150, seed=seed).outcomes, 300).primary]
    )
    assert 85 <= covered <= 100


def test_failures_count_as_wrong_or_are_left_out_as_in_the_paper() -> None:
    found = score(cell("CC"), Given("CC", ["a", "b", "c", "d"], ["a", "b", FAILED, "x"]).outcomes, 10)
    assert found.failed == 1
    assert found.values["recall_at_1"] == 0.5
    assert found.without_failed["recall_at_1"] == pytest.approx(2 / 3)
    nothing = score(cell("AP"), Given("AP", ["yes"], [FAILED]).outcomes, 10)
    assert nothing.values["f1"] == 0.0
    assert nothing.without_failed == {}


def test_a_gap_between_two_variants_of_the_same_samples_is_paired() -> None:
    codes = ("AP", "CC", "SR")
    worse = [score(cell(code, "text"), answered(code, 0.6).outcomes, 500) for code in codes]
    better = []
    for code in codes:
        given = answered(code, 0.6)
        wrong = [n for n, true in enumerate(given.truth) if given.answers[n] != true][:9]
        for n in wrong:
            given.answers[n] = given.truth[n]
        better.append(score(cell(code), given.outcomes, 500))
    gap = difference(better, worse)
    assert gap.value == pytest.approx(mean_of(better).value - mean_of(worse).value)
    # The two share all answers but 9 of 200 a task: unpaired, the intervals overlap.
    assert gap.low > 0
    assert mean_of(worse).high > mean_of(better).low


def test_a_true_answer_outside_the_labels_is_always_counted_as_wrong() -> None:
    given = Given("AP", ["maybe", "yes"], [FAILED, "yes"])
    found = score(cell("AP"), given.outcomes, 200)
    assert found.values["accuracy"] == 0.5
    assert found.interval("accuracy").low < 0.5 < found.interval("accuracy").high


def test_an_answer_is_stored_in_one_or_two_bytes() -> None:
    """What the driver holds per answer, whatever the length of sample ids and options."""
    for task in TASKS.values():
        given = answered(task.code, 0.6)
        assert given.outcomes.codes.itemsize == (1 if len(task.labels) <= 10 else 2)
        assert given.outcomes.failed == given.answers.count(FAILED)
        halves = [Given(task.code, given.truth[at], given.answers[at]).outcomes for at in (slice(70), slice(70, None))]
        assert Outcomes.joined(halves).codes.tolist() == given.outcomes.codes.tolist()
