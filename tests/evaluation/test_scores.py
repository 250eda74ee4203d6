from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support, recall_score

from caslie_ray.evaluation import _scores
from caslie_ray.evaluation._answers import FAILED, Answered, Cell, read_answers
from caslie_ray.evaluation._results import measure, summary_of, write_results
from caslie_ray.evaluation._scores import Scored, difference, mean_of, metric_rows, score
from caslie_ray.evaluation._tables import Results, as_latex, as_markdown, improvement, tables_of
from caslie_ray.prediction import Answerer
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import SPLITS, TASKS, Confusion, Metrics, Task, Values, find_task, metric, share


def answered(code: str, right: float, failed: float = 0.1, count: int = 200, seed: int = 0) -> Answered:
    """Answers to a task of which a share is right."""
    rng = random.Random(seed)
    labels = find_task(code).labels or tuple("uvwxyz")
    truth = [rng.choice(labels) for _ in range(count)]
    chance = random.Random(seed + 1)
    answers = []
    for true in truth:
        wrong = FAILED if chance.random() < failed else chance.choice([label for label in labels if label != true])
        answers.append(true if chance.random() < right else wrong)
    return Answered([f"{n:04}" for n in range(count)], truth, answers)


def cell(code: str, variant: str = "caslie", split: str = "ind") -> Cell:
    return Cell("base", variant, find_task(code).name, split)


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


def redrawn(task: Task, given: Answered, resamples: int) -> Iterator[tuple[list[str], list[str]]]:
    """The bootstrap's resamples of truth and answers, drawn by the same generator."""
    seed = int.from_bytes(hashlib.sha256(f"{task.name} ind".encode()).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        taken = rng.integers(0, len(given), len(given)).tolist()
        yield [given.truth[i] for i in taken], [given.answers[i] for i in taken]


@pytest.mark.parametrize("code", [task.code for task in TASKS.values()])
def test_values_and_resampled_values_are_scikit_learns(code: str) -> None:
    task, given = find_task(code), answered(code, 0.6)
    found = score(cell(code), given, 5)
    assert found.values == pytest.approx(scikit_learns(task, given.truth, given.answers))
    for at, resample in enumerate(redrawn(task, given, 5)):
        assert {name: draws[at] for name, draws in found.draws.items()} == pytest.approx(scikit_learns(task, *resample))


@metric("MCC")
def matthews(of: Confusion) -> Values:
    """Matthews correlation, in which an answer that cannot be read is a class of its own."""
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
    found = score(cell(code), given, 5)
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
    silent = score(cell("AP"), Answered(["1", "2"], ["no", "no"], ["no", "no"]), 10)
    assert silent.interval("f1") == (0.0, 0.0, 0.0)
    assert matthews(Confusion.of(["no"], ["no"], ["yes", "no"])) == 0.0


def test_a_metric_that_does_not_give_a_value_per_matrix_is_refused_at_once() -> None:
    @metric("Hits")
    def all_hits(of: Confusion) -> Values:
        return np.asarray(of.hits.sum())

    with pytest.raises(ValueError, match=r"metric 'all_hits' returned shape \(\).*reduce the last axes only"):
        replace(find_task("AP"), metrics=Metrics("all_hits", (all_hits,)))


def test_metrics_are_told_apart_by_their_names() -> None:
    with pytest.raises(ValueError, match="need names of their own"):
        Metrics("matthews", (matthews, matthews))
    with pytest.raises(ValueError, match="the primary metric 'f1' is none of matthews"):
        Metrics("f1", (matthews,))


def test_many_labels_are_resampled_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    given = answered("SA", 0.6)
    at_once = score(cell("SA"), given, 50).draws
    monkeypatch.setattr(_scores, "_CHUNK_CELLS", 100)
    for name, draws in score(cell("SA"), given, 50).draws.items():
        assert draws.tolist() == at_once[name].tolist()


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = sum(
        low <= 0.7 <= high
        for seed in range(100)
        for _, low, high in [score(cell("CC"), answered("CC", 0.7, count=150, seed=seed), 300).primary]
    )
    assert 85 <= covered <= 100


def test_failures_count_as_wrong_and_are_left_out_the_papers_way() -> None:
    found = score(cell("CC"), Answered(["1", "2", "3", "4"], ["a", "b", "c", "d"], ["a", "b", FAILED, "x"]), 10)
    assert found.failed == 1
    assert found.values["recall_at_1"] == 0.5
    assert found.without_failed["recall_at_1"] == pytest.approx(2 / 3)
    nothing = score(cell("AP"), Answered(["1"], ["yes"], [FAILED]), 10)
    assert nothing.values["f1"] == 0.0
    assert nothing.without_failed == {}


def test_a_gap_between_two_variants_of_the_same_samples_is_paired() -> None:
    codes = ("AP", "CC", "SR")
    worse = [score(cell(code, "text"), answered(code, 0.6), 500) for code in codes]
    better = []
    for code in codes:
        given = answered(code, 0.6)
        wrong = [n for n, right in enumerate(given.right) if not right][:9]
        for n in wrong:
            given.answers[n] = given.truth[n]
        better.append(score(cell(code), given, 500))
    gap = difference(better, worse)
    assert gap.value == pytest.approx(mean_of(better).value - mean_of(worse).value)
    # The two share all answers but 9 of 200 a task: unpaired, the intervals overlap.
    assert gap.low > 0
    assert mean_of(worse).high > mean_of(better).low


def all_scored(variants: dict[str, float]) -> list[Scored]:
    codes = {"ind": [task.code for task in TASKS.values()], "ood": ["AP", "CC", "PRP", "SA", "SR"]}
    return [
        score(cell(code, variant, split), answered(code, right, 0.05, 60), 50)
        for variant, right in variants.items()
        for split, here in codes.items()
        for code in here
    ]


def test_tables_stand_beside_the_papers() -> None:
    variants = {"text": 0.5, "uia": 0.6, "caslie": 0.7, "shuffled": 0.55, "verdict-only": 0.58,
                "task-specific": 0.6, "context-free": 0.6, "voters-phi": 0.6, "voters-3": 0.65}  # fmt: skip
    scored = all_scored(variants)
    results = Results(scored, {("caslie", find_task("AP").name, "ind"): 0.25})
    tables = {table.number: table for table in tables_of(results)}
    assert list(tables) == ["4", "5", "6", "A3", "A4", "A7", "A8", "A9", "A10", "A11", "A12", "A13"]
    overall = tables["4"]
    assert overall.columns[2:] == (*(f"IND {task.code}" for task in TASKS.values()),
                                   *(f"OOD {code}" for code in ("AP", "CC", "PRP", "SA", "SR")))  # fmt: skip
    rows = {row[1]: row[2:] for row in overall.rows}
    assert rows["CASLIE-M"][:7] == ("0.891", "0.979", "0.566", "0.398", "0.731", "0.656", "0.223")
    assert rows["eCeLLM-L"][-1] == "0.304"
    assert rows["captions used, %"][:2] == ("25.0", "–")
    ours = next(one for one in scored if one.cell == cell("AP"))
    assert rows["CASLIE on base"][0] == f"{ours.primary.value:.3f}"
    for table in tables.values():
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.number
        assert table.number == "5" or any(row[0] == "paper" for row in table.rows)
        assert any(row[0] == "ours" for row in table.rows)
    gains = [row for row in tables["6"].rows if "CASLIE − uniM³, text only" in row[1]]
    assert [row[-1][0] for row in gains] == ["+", "+"]
    assert any("failures left out" in row[1] for row in tables["A7"].rows)
    markdown, latex = as_markdown(list(tables.values())), as_latex(list(tables.values()))
    assert "### Table A13: SR, all metrics" in markdown
    assert latex.count(r"\toprule") == latex.count(r"\end{table}") == len(tables)


def test_all_tables_take_a_task_that_the_paper_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(find_task("AP"), name="gift_suitability", code="GS")
    monkeypatch.setitem(TASKS, own.name, own)
    variants = dict.fromkeys(("text", "uia", "caslie", "shuffled", "task-specific", "context-free", "voters-phi"), 0.6)
    tables = tables_of(Results(all_scored(variants), {}))
    assert [table.number for table in tables[:5]] == ["4", "5", "6", "A3", "A4"]
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.heading
    for table in tables[1:5]:
        place = table.columns.index("GS")
        assert {row[place] for row in table.rows if row[0] == "paper"} <= {"–"}
        assert any(row[0] == "ours" and row[place] not in ("–", "") for row in table.rows), table.heading
        assert (table.number == "5") != ("The paper has no figures of GS; its means are without." in table.note)
    assert tables[-1].heading == "GS, all metrics"
    assert "### GS, all metrics" in as_markdown(tables)
    assert r"\caption{GS, all metrics}" in as_latex(tables)
    assert r"\caption{100\% \& x\_y}" in as_latex([replace(tables[-1], title="100% & x_y")])


def test_the_mean_improvement_is_the_papers() -> None:
    # 6.4: CASLIE-M improves on UIA by 4.1%, and on text only by 4.9%: the mean of the relative gains in all tasks, in
    # domain and out of it.
    paper = json.loads(Path("caslie_ray/evaluation/paper.json").read_text())["A7-A13"]

    def primary(variant: str) -> list[float]:
        return [
            row[task.metrics.primary]
            for task in TASKS.values()
            for row in paper
            if (row["task"], row["model"], row["variant"]) == (task.code, "CASLIE-M", variant)
        ]

    assert improvement(primary("caslie"), primary("uia")) == pytest.approx(0.041, abs=0.001)
    assert improvement(primary("caslie"), primary("text")) == pytest.approx(0.049, abs=0.001)


ANSWERERS = [
    Answerer("base", name, "instructions", name, (), None, f"the weights of {name}") for name in ("caslie", "text")
]
MEASURED = ("ind", "ood")
OPTIONS = {"AP": ["yes", "no"], "CC": ["lamp", "vase"]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    opened = open_run(str(tmp_path / "run"))
    names = {"AP": "yes", "CC": "lamp"}
    asked: list[dict[str, Any]] = [
        {"sample_id": f"{split}{code}{n}", "variant": variant, "task": find_task(code).name, "split": split,
         "prompt": f"{variant}: {code} {n}?", "prompt_fields": [], "options": OPTIONS[code],
         "response": names[code] if n % 2 else OPTIONS[code][-1], "captions_used": 0}
        for split in SPLITS for code in names for n in range(8) for variant in ("caslie", "text")
    ]  # fmt: skip
    opened.write("instructions", "0", pa.Table.from_pylist(asked, schema=SCHEMAS["instructions"]))
    keys = {answerer.variant: answerer.key for answerer in ANSWERERS}
    predictions = [
        {"sample_id": row["sample_id"], "model": "base", "variant": row["variant"], "text": "", "answer": answer,
         "failed": answer is None, "key": keys[row["variant"]](row["prompt"]), "tokens": 1, "cut": False,
         "error": None, "retryable": False}
        for row in asked if row["split"] in MEASURED
        for answer in [
            row["response"] if row["variant"] == "caslie" else None if row["sample_id"][-1] == "3"
            else row["options"][-1]
        ]
    ]  # fmt: skip
    opened.write("predictions", "0", pa.Table.from_pylist(predictions, schema=SCHEMAS["predictions"]))
    return opened


def replaced(run: Run, sample_id: str, **values: object) -> None:
    """Change the row of the variant `caslie` of a sample."""
    rows = run.read("predictions").to_pylist()
    rows = [row | values if (row["sample_id"], row["variant"]) == (sample_id, "caslie") else row for row in rows]
    run.write("predictions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["predictions"]))


def test_answers_are_read_beside_the_truth(run: Run) -> None:
    found = read_answers(run, ANSWERERS, MEASURED)
    assert {name: len(one) for name, one in found.cells.items()} == {
        Cell("base", variant, find_task(code).name, split): 8
        for variant in ("caslie", "text") for code in OPTIONS for split in MEASURED
    }  # fmt: skip
    assert all(found.cells[cell("CC")].right)
    assert found.cells[cell("AP", "text")].failed == 1
    assert not found.missing


def test_a_true_answer_is_read_as_any_other(run: Run) -> None:
    rows = run.read("instructions").to_pylist()
    for row in rows:
        if row["response"] == "lamp":
            row["response"] = "A"  # which of the options, and not its words
            row["options"] = ["A: lamp", "B: vase"]
    run.write("instructions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))
    assert set(read_answers(run, ANSWERERS, MEASURED).cells[cell("CC")].truth) == {"A: lamp", "vase"}


def rewritten(run: Run, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change instructions, as an older version of `ingest` and `fuse` might have written them."""
    rows = [row | change(row) for row in run.read("instructions").to_pylist()]
    run.write("instructions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))


def test_a_true_answer_that_is_no_option_is_not_measured_and_said_so(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_answers(run, ANSWERERS, MEASURED)
    odd = ("indAP1", "indAP3", "oodAP1", "indCC2", "trainAP1")  # train is not measured: training says it itself
    rewritten(run, lambda row: {"response": "perhaps"} if row["sample_id"] in odd else {})
    found = read_answers(run, ANSWERERS, MEASURED)
    assert found.left_out == {"AP": {"ind": 2, "ood": 1}, "CC": {"ind": 1}}
    assert not found.missing
    for name, answers in found.cells.items():
        kept = [at for at, sample in enumerate(before.cells[name].samples) if sample not in odd]
        assert answers.samples == [before.cells[name].samples[at] for at in kept]
        assert answers.answers == [before.cells[name].answers[at] for at in kept]
    measured = measure(run, ANSWERERS, MEASURED, 10)
    assert measured is not None
    assert measured.left_out == found.left_out
    assert re.search(
        r"4 samples are not measured, .* sample (ind|ood)\w+: 'perhaps' is none of '(yes|lamp)'", caplog.text
    )
    assert "correct the source and run ingest again" in caplog.text
    (ours,) = {
        row["n"] for row in metric_rows(measured.scored) if (row["task"], row["split"]) == (cell("AP").task, "ind")
    }
    assert ours == 6
    tables = {table.heading: table.note for table in tables_of(measured.results)}
    assert tables["Table A7: AP, all metrics"].endswith("none of their options or labels: AP ind 2, AP ood 1.")
    assert tables["Table A8: CC, all metrics"].endswith("none of their options or labels: CC ind 1.")
    assert "AP ind 2, AP ood 1, CC ind 1." in tables["Table 4: Overall performance, primary metric of each task"]


def test_where_no_true_answer_is_an_option_it_is_still_said(run: Run) -> None:
    rewritten(run, lambda row: {"response": "perhaps"})
    measured = measure(run, ANSWERERS, MEASURED, 10)
    assert measured is not None
    assert measured.left_out == {code: {"ind": 8, "ood": 8} for code in ("AP", "CC")}
    write_results(run, measured)
    assert run.read_json("report/metrics.json") == []
    assert summary_of(measured) == {}


def test_a_true_answer_in_other_words_is_measured(run: Run) -> None:
    """Spellings of the released data: the letter of an option, its words in other case, yes with a full stop."""
    spelled = {"yes": "Yes.", "no": "No", "lamp": "A: lamp", "vase": "B"}

    def change(row: dict[str, Any]) -> dict[str, Any]:
        options = ["A: lamp", "B: vase"] if row["options"] == OPTIONS["CC"] else row["options"]
        return {"response": spelled[row["response"]], "options": options}

    rewritten(run, change)
    assert read_answers(run, ANSWERERS, MEASURED).left_out == {}


def test_what_an_engine_could_not_give_counts_as_wrong(run: Run) -> None:
    replaced(run, "indCC1", answer=None, failed=True, error="out of memory", retryable=True)
    found = read_answers(run, ANSWERERS, MEASURED).cells[cell("CC")]
    assert (len(found), found.failed) == (8, 1)


@pytest.mark.parametrize("why", ["another model", "another question"])
def test_answers_of_another_model_or_to_another_question_do_not_count(run: Run, why: str) -> None:
    if why == "another model":
        replaced(run, "indCC1", key="of an adapter that was trained before")
    else:
        rows = run.read("instructions").to_pylist()
        for row in rows:
            row["prompt"] += " now" if (row["sample_id"], row["variant"]) == ("indCC1", "caslie") else ""
        run.write("instructions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))
    found = read_answers(run, ANSWERERS, MEASURED)
    assert len(found.cells[cell("CC")]) == 7
    assert found.missing == {"caslie": {"ind": 1}}
    measured = measure(run, ANSWERERS, MEASURED, 10)
    assert measured is not None
    assert measured.missing == found.missing


def test_models_that_are_not_asked_for_are_not_measured(run: Run) -> None:
    assert {one.variant for one in read_answers(run, ANSWERERS[:1], MEASURED).cells} == {"caslie"}


def test_a_true_answer_outside_the_labels_is_never_hit() -> None:
    given = Answered(["0", "1"], ["maybe", "yes"], [FAILED, "yes"])
    found = score(cell("AP"), given, 200)
    assert found.values["accuracy"] == 0.5
    assert found.interval("accuracy").low < 0.5 < found.interval("accuracy").high


def test_metrics_and_tables_are_written(run: Run) -> None:
    measured = measure(run, ANSWERERS, MEASURED, 20)
    assert measured is not None
    write_results(run, measured)
    metrics = run.read_json("report/metrics.json")
    needed = {"model", "variant", "task", "split", "metric", "primary", "value", "low", "high", "n", "failed"}
    assert all(needed <= row.keys() for row in metrics)
    assert all(row["low"] <= row["value"] <= row["high"] for row in metrics)
    assert sum(row["primary"] for row in metrics) == 8
    assert "Table 6" in run.read_bytes(run.path("report/tables.md")).decode()
    gaps = summary_of(measured)["base"]["ind"]["caslie_exceeds"]
    assert gaps["text"]["value"] > 0


def test_a_run_without_predictions_has_no_results(tmp_path: Path) -> None:
    assert measure(open_run(str(tmp_path)), ANSWERERS, MEASURED, 10) is None
