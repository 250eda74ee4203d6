"""The card of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from caslie_ray.export._card import card, lineup_names
from caslie_ray.export._counts import Counts
from caslie_ray.export._rows import ROWS
from caslie_ray.storage.run import open_run

COUNTS = Counts(products=1200, won=900, lost=100, failed=3, rows=900, bytes=5000)


def front_matter(text: str) -> tuple[dict[str, Any], str]:
    before, head, body = text.split("---\n", 2)
    assert before == ""
    found: dict[str, Any] = yaml.safe_load(head)
    return found, body


def test_the_front_matter_describes_the_files() -> None:
    head, body = front_matter(card(COUNTS, ROWS, ["ec3", "phi"], every=False))
    assert head["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}]
    info = head["dataset_info"]
    assert info["splits"] == [{"name": "train", "num_examples": 900}]
    assert info["download_size"] == 5000
    features = {one.pop("name"): one for one in info["features"]}
    assert list(features) == ROWS.names
    assert features["place"] == {"dtype": "int32"}
    assert features["yes_share"] == {"dtype": "float64"}
    assert features["probabilities"] == {
        "list": [{"name": "voter", "dtype": "string"}, {"name": "p_yes", "dtype": "float64"}]
    }
    for shown in ("products: 1,200", "captions that won: 900 (90.0%)", "models: `ec3`, `phi`"):
        assert f"- {shown}\n" in body
    for name in ROWS.names:
        assert f"| `{name}` |" in body


@pytest.mark.parametrize(
    ("rows", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000, "100K<n<1M"),
     (10**6, "1M<n<10M"), (10**8, "100M<n<1B"), (10**9, "1B<n<10B"), (10**11, "100B<n<1T")],
)  # fmt: skip
def test_the_size_is_one_of_the_hub(rows: int, size: str) -> None:
    head, _ = front_matter(card(Counts(rows=rows), ROWS, [], every=False))
    assert head["size_categories"] == [size]


def test_names_of_models_are_no_markup() -> None:
    hostile = "`x`\n---\n<script>alert(1)</script> [a](http://evil.example) | ${{ x }}"
    head, body = front_matter(card(COUNTS, ROWS, [hostile], every=True))
    assert head["pretty_name"] == "Captions of product images"
    (line,) = [line for line in body.splitlines() if line.startswith("- models")]
    assert line.count("`") == 2
    assert not set("<>[]()|$\n") & set(line.removeprefix("- models: "))


def test_names_come_from_the_summary_of_caption(tmp_path: Path) -> None:
    run = open_run(str(tmp_path))
    assert lineup_names(run) == []
    run.write_json("summary/caption.json", {"engines": {"ec3": "vllm", "phi": "vllm"}})
    assert lineup_names(run) == ["ec3", "phi"]
    others: tuple[Any, ...] = ([], {"engines": 3}, {})
    for damaged in others:
        run.write_json("summary/caption.json", damaged)
        assert lineup_names(run) == []


def test_there_is_no_rate_without_verdicts() -> None:
    assert "captions that won:" not in card(Counts(products=3), ROWS, [], every=False)
