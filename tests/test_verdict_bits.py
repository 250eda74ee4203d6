"""Verdicts as predictors of the answers, without captions or text."""

from __future__ import annotations

import math

import pytest

from caslie_ray.evaluation.answers.results import Results
from caslie_ray.evaluation.answers.tables import tables_of
from caslie_ray.evaluation.summary_lines import verdict_bit_lines
from caslie_ray.tasks import find_task
from caslie_ray.verdict_bits import OTHER_BITS, VerdictBits, mutual_information, predictions_of_bits
from caslie_ray.verdict_bits._counts import _PATTERNS

TELLING = {"0": {"no": 90, "yes": 10}, "1": {"no": 10, "yes": 90}}
SILENT = {"0": {"no": 60, "yes": 40}, "1": {"no": 60, "yes": 40}}


def test_bits_that_predict_the_answer_are_measured_and_printed() -> None:
    found = predictions_of_bits({"AP": {"train": TELLING, "ind": TELLING, "ood": SILENT}}, 1000)["AP"]
    assert found["ind"]["accuracy"]["value"] == pytest.approx(0.9)
    assert found["ind"]["majority"]["value"] == pytest.approx(0.5)
    assert found["ind"]["gain"]["value"] == pytest.approx(0.4)
    assert 0.25 < found["ind"]["gain"]["low"] < 0.4 < found["ind"]["gain"]["high"] < 0.55
    assert found["ood"]["accuracy"]["value"] == pytest.approx(0.5)
    (line,) = verdict_bit_lines({"AP": found})
    assert "AP ind 90.0% (most frequent answer 50.0%)" in line
    assert "ood" not in line


def test_bits_without_information_have_no_gain() -> None:
    found = predictions_of_bits({"AP": {"train": SILENT, "ind": SILENT}}, 500)["AP"]["ind"]
    assert found["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["mutual_information"]["low"] == 0.0
    assert verdict_bit_lines({"AP": {"ind": found}}) == []


def test_patterns_and_answers_absent_from_training() -> None:
    counts = {"SR": {"train": {"00": {"1": 3, "2": 1}}, "ind": {"11": {"1": 1, "3": 3}}}}
    found = predictions_of_bits(counts, 200)["SR"]["ind"]
    assert found["accuracy"]["value"] == found["majority"]["value"] == pytest.approx(0.25)
    assert predictions_of_bits({"AP": {"ind": TELLING}}, 200) == {}


def test_mutual_information_is_that_of_the_table() -> None:
    half = {"0": {"no": 5000, "yes": 0}, "1": {"no": 0, "yes": 5000}}
    assert mutual_information(half, 500).value == pytest.approx(1.0, abs=1e-3)
    entropy = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    found = mutual_information(TELLING, 1000)
    assert found.value == pytest.approx(1 - entropy, abs=0.01)
    assert found.low < 1 - entropy < found.high


def test_samples_are_counted_by_label_or_by_option_position() -> None:
    bits = VerdictBits()
    psi, cc = find_task("PSI"), find_task("CC")
    bits.add(psi.name, "train", ("A: yes", "B: no"), "B", (True,))
    bits.add(psi.name, "train", ("A: yes", "B: no"), "A: yes", (False,))
    bits.add(psi.name, "train", ("A: yes", "B: no"), "perhaps", (False,))
    bits.add(cc.name, "ind", ("A: mug", "B: kettle", "C: lamp"), "C: lamp", (True,))
    assert bits.as_dict() == {
        "CC": {"ind": {"1": {"3": 1}}},
        "PSI": {"train": {"0": {"yes": 1}, "1": {"no": 1}}},
    }


def test_patterns_are_bounded() -> None:
    bits, task = VerdictBits(), find_task("CC").name
    for number in range(_PATTERNS + 5):
        used = [digit == "1" for digit in f"{number:020b}"]
        bits.add(task, "ind", ("A: mug", "B: lamp"), "A: mug", used)
    counted = bits.as_dict()["CC"]["ind"]
    assert len(counted) == _PATTERNS + 1
    assert counted[OTHER_BITS] == {"1": 5}


def test_the_tables_show_them() -> None:
    found = predictions_of_bits({"AP": {"train": TELLING, "ind": TELLING}}, 200)
    (table,) = (
        one for one in tables_of(Results([], {}, of_bits=found)) if one.title == "What the verdicts alone predict"
    )
    (row,) = table.rows
    assert row[1] == "AP IND"
    assert row[2].startswith("0.500 [")
    assert row[3].startswith("0.900 [")
    assert row[-1] == "200"
