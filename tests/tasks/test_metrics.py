"""Metrics (paper section 6 and E.4) against numbers worked by hand."""

from __future__ import annotations

import pickle

import pytest

from caslie_ray.tasks import TASKS, find_task

PRIMARY = {
    "AP": "f1",
    "CC": "recall_at_1",
    "PRP": "macro_f1",
    "PSI": "f1",
    "MPC": "accuracy",
    "SA": "macro_f1",
    "SR": "recall_at_1",
}


def score(code: str, truth: list[str], answers: list[str]) -> dict[str, float]:
    task = find_task(code)
    return task.metrics.score(truth, answers, task.labels)


def test_the_primary_metrics_of_table_4() -> None:
    assert {task.code: task.metrics.primary for task in TASKS.values()} == PRIMARY
    for task in TASKS.values():
        truth = [*(task.labels or ("A: Tent",))]
        assert task.metrics.primary in task.metrics.score(truth, truth, task.labels)


@pytest.mark.parametrize("code", PRIMARY)
def test_metrics_can_be_pickled(code: str) -> None:
    task = find_task(code)
    truth = [*(task.labels or ("A: Tent", "B: Stove"))]
    copied = pickle.loads(pickle.dumps(task.metrics))
    assert copied == task.metrics
    assert copied.score(truth, truth[::-1], task.labels) == score(code, truth, truth[::-1])


@pytest.mark.parametrize("code", PRIMARY)
def test_all_correct_answers_score_one(code: str) -> None:
    truth = [*(find_task(code).labels or ("A: Tent", "B: Stove"))]
    assert set(score(code, truth, truth).values()) == {1.0}


@pytest.mark.parametrize("code", ["AP", "PSI"])
def test_the_positive_class_is_yes(code: str) -> None:
    assert find_task(code).labels == ("yes", "no")
    truth = ["yes", "yes", "yes", "no", "no", "no", "no", "no"]
    answers = ["yes", "yes", "no", "yes", "no", "no", "no", ""]
    # Yes: 2 of 3 found, 3 predicted. The last one is a failure and counts as wrong.
    assert score(code, truth, answers) == pytest.approx(
        {"accuracy": 5 / 8, "recall": 2 / 3, "precision": 2 / 3, "f1": 2 / 3}
    )


@pytest.mark.parametrize("answers", [["no"] * 4, ["yes"] * 4])
def test_where_no_yes_occurs(answers: list[str]) -> None:
    told = score("PSI", ["no"] * 4, answers)
    assert told == {"accuracy": float(answers[0] == "no"), "recall": 0, "precision": 0, "f1": 0}


def test_macro_averages_by_hand() -> None:
    truth = ["also buy"] * 4 + ["also view"] * 3 + ["similar"]
    answers = ["also buy", "also buy", "also buy", "also view", "also view", "also view", "also buy", "also view"]
    # also buy: recall 3/4, precision 3/4. also view: recall 2/3, precision 2/4. similar: never predicted.
    assert score("PRP", truth, answers) == pytest.approx(
        {
            "accuracy": 5 / 8,
            "macro_recall": (3 / 4 + 2 / 3 + 0) / 3,
            "macro_precision": (3 / 4 + 1 / 2 + 0) / 3,
            "macro_f1": (3 / 4 + 4 / 7 + 0) / 3,
        }
    )


def test_labels_come_from_the_task_and_not_from_what_occurs() -> None:
    """Of five sentiments two occur, both found: a mean over what occurs would be 1."""
    truth = ["positive", "negative"]
    assert score("SA", truth, truth) == pytest.approx(
        {"accuracy": 1.0, "macro_recall": 2 / 5, "macro_precision": 2 / 5, "macro_f1": 2 / 5}
    )


def test_a_failure_is_not_a_separate_label() -> None:
    told = score("MPC", ["exact", "substitute", "complement", "irrelevant"], ["exact", "substitute", "complement", "?"])
    assert told == pytest.approx(
        {"accuracy": 3 / 4, "macro_recall": 3 / 4, "macro_precision": 3 / 4, "macro_f1": 3 / 4}
    )


@pytest.mark.parametrize("code", ["CC", "SR"])
def test_recall_at_1(code: str) -> None:
    assert score(code, ["A: a", "B: b", "A: c"], ["A: a", "B: b", ""]) == pytest.approx({"recall_at_1": 2 / 3})
