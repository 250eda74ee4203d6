from __future__ import annotations

from typing import Any

from caslie_ray.dataset import IngestSummary
from caslie_ray.evaluation._figures import facts_of
from caslie_ray.reporting import show_caption, show_evaluate, show_fuse, show_ingest


def caption_summary(**changes: Any) -> dict[str, Any]:
    session = {
        "views_computed": 40, "model_calls": 130, "tokens": 9000, "seconds": 20.0, "views_per_second": 2.0,
        "seconds_an_instance": {"captioning": 0.1, "voting": 0.2},
    }  # fmt: skip
    summary = {
        "views": 100,
        "repeats_saved": 25,
        "captions_used": {
            "share": 0.3,
            "by_task": {
                "sequential_recommendation": {"views": 60, "used": 12, "used_share": 0.2},
                "answerability_prediction": {"views": 40, "used": 18, "used_share": 0.45},
            },
        },
        "voters": {
            "llama": {"asked": 100, "failed": 0, "yes_rate": 0.5},
            "phi": {"asked": 60, "failed": 1, "yes_rate": None},
        },
        "all_voted": 10,
        "fleiss_kappa": 0.418,
        "calls_saved_by_early_exit": 40,
        "errors": {"poison: alone in its batch": 1},
        "to_be_asked_again": 1,
        "rejects": {"image": {"not an image": 3}},
        "this_session": session,
    }
    return summary | changes


def test_the_caption_summary_reads_as_a_row_of_table_4() -> None:
    text = "\n".join(show_caption(caption_summary()))
    assert "30.0% · AP 45% · SR 20%" in text
    assert "llama 50% · Fleiss' κ 0.42" in text
    assert "40 saved by early exit (20% of all)" in text
    assert "1  poison: alone in its batch" in text
    assert " · 1 to be asked again" in text
    assert "3  image: not an image" in text
    assert "2.0 views/s" in text


def test_a_session_with_nothing_to_do_says_so() -> None:
    session = caption_summary()["this_session"] | {"views_computed": 0}
    text = "\n".join(show_caption(caption_summary(this_session=session, rejects=None, voters={})))
    assert "nothing to do, no model loaded" in text
    assert "Fleiss" not in text


def test_the_other_summaries() -> None:
    idle = "\n".join(show_ingest(IngestSummary(files=1, rows=3, samples=3).as_dict()))
    assert "nothing to do" in idle
    assert "3 in 1 file\n" in idle
    assert "samples          3\n" in idle
    busy = IngestSummary(
        rows=3, samples_by_task={"x": {"ood": 1, "train": 2}}, rejects={"image": 2},
        reject_reasons={"image": {"truncated": 2}}, retryable_rejects=1, parsed_rows=3,
    )  # fmt: skip
    text = "\n".join(show_ingest(busy.as_dict()))
    assert "train 2 · ood 1" in text
    assert "2  image: truncated" in text
    assert "1 tried again by the next run" in text
    fused = show_fuse(
        {"variants": {"caslie": {"train": 5, "captions": 2}}, "views_without_caption_row": 4, "files_written": 1}
    )
    assert "train 5 · 2 captions used" in fused[0]
    assert "run caption to its end" in fused[1]


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


def test_an_evaluation_is_told_with_its_intervals() -> None:
    text = "\n".join(show_evaluate(_evaluation()))
    assert "useful 35% · useless 48% · misleading 17%" in text
    assert "97.0% [96.0%, 98.0%] named rightly" in text
    assert "colour 99%" in text
    assert "size" not in text
    assert "without context  50.0% [49.0%, 51.0%] named rightly: 47.0%" in text
    assert "of 3           93.0% [92.0%, 94.0%] · mean voter 90.0%" in text
    assert "voters differ    8.0%" in text
    assert "runs/demo/report/index.html" in text
    assert "not measured" not in text
    odd = _evaluation() | {"not_measured": {"AP": {"ind": 2, "ood": 1_000}}, "profile": "mini"}
    odd["figures"] |= {"failed": _figure(0.0), "truth": None}
    words = "AP ind 2, AP ood 1,000"
    assert f"not measured     {words}: their true answer is none of their options or labels" in show_evaluate(odd)
    assert ("not measured, true answer is none of the options", words) in facts_of(odd, "runs/demo")


def test_of_too_few_views_nothing_is_told() -> None:
    summary = _evaluation(truth=None, agreement={"views": 4, "mean_pairwise_disagreement": _figure(0.5)})
    text = "\n".join(show_evaluate(summary))
    assert "differ" not in text
    assert "verdicts" not in text
