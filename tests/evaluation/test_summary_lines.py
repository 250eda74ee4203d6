"""The printed summary of the evaluate job."""

from __future__ import annotations

from typing import Any

from caslie_ray.evaluation._facts import facts_of
from caslie_ray.evaluation.summary_lines import summary_lines


def _figure(value: float | None, n: int = 900) -> dict[str, Any]:
    bounds = (None, None) if value is None else (max(0.0, value - 0.01), min(1.0, value + 0.01))
    return {"value": value, "low": bounds[0], "high": bounds[1], "n": n}


def _evaluation(**changes: Any) -> dict[str, Any]:
    judge = {"balanced_accuracy": _figure(0.93), "helpful_lost": _figure(0.04), "unhelpful_kept": _figure(0.1)}
    captions = {
        "asked_and_right": _figure(0.97),
        "asked_and_right_by_attribute": {"colour": _figure(0.99), "size": _figure(None, 0)},
    }
    truth = {
        "usefulness": {"useful": _figure(0.35), "useless": _figure(0.48), "misleading": _figure(0.17)},
        "captions": {"informative": captions, "placeholder": {"described_as_a_product": _figure(0.0)}},
        "context": {"free": {"asked_and_right": _figure(0.5)}, "gap": _figure(0.47)},
        "verdicts": {
            "verdict": judge,
            "majorities": [{"voters": ["a", "b", "c"], "mean_voter": _figure(0.9), **judge}],
        },
    }
    agreement = {"views": 900, "mean_pairwise_disagreement": _figure(0.08)}
    figures = {"used": _figure(0.4), "agreement": agreement, "truth": truth, **changes}
    return {
        "views": 900,
        "views_without_row": 0,
        "figures": figures,
        "page": "runs/demo/report/index.html",
        "seconds": 2.0,
    }


def test_figures_have_intervals() -> None:
    text = "\n".join(summary_lines(_evaluation()))
    assert "useful 35% · useless 48% · misleading 17%" in text
    assert "97.0% [96.0%, 98.0%] named correctly" in text
    assert "colour 99%" in text
    assert "size" not in text
    assert "without context  50.0% [49.0%, 51.0%] named correctly: 47.0%" in text
    assert "of 3           93.0% [92.0%, 94.0%] · mean voter 90.0%" in text
    assert "voters differ    8.0%" in text
    assert "runs/demo/report/index.html" in text
    assert "not measured" not in text
    odd = _evaluation() | {"not_measured": {"AP": {"ind": 2, "ood": 1_000}}, "profile": "mini"}
    odd["figures"] |= {"failed": _figure(0.0), "truth": None}
    words = "AP ind 2, AP ood 1,000"
    assert f"not measured     {words}: their true answer is none of their options or labels" in summary_lines(odd)
    assert ("not measured, true answer is not an option", words) in facts_of(odd, "runs/demo")


def test_figures_of_too_few_views_are_not_printed() -> None:
    summary = _evaluation(truth=None, agreement={"views": 4, "mean_pairwise_disagreement": _figure(0.5)})
    text = "\n".join(summary_lines(summary))
    assert "differ" not in text
    assert "verdicts" not in text
