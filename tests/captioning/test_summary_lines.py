"""The printed summary of the caption job."""

from __future__ import annotations

from typing import Any

from caslie_ray.captioning.summary_lines import summary_lines


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
        "fleiss_kappa": 0.412,
        "calls_saved_by_early_exit": 40,
        "errors": {"poison: alone in its batch": 1},
        "to_be_asked_again": 1,
        "rejects": {"image": {"not an image": 3}},
        "this_session": session,
    }
    return summary | changes


def test_the_caption_summary_has_the_shares_of_table_4() -> None:
    text = "\n".join(summary_lines(caption_summary()))
    assert "30.0% · AP 45% · SR 20%" in text
    assert "llama 50% · Fleiss' κ 0.41" in text
    assert "40 saved by early exit (20% of all)" in text
    assert "1  poison: alone in its batch" in text
    assert "1 to be asked again" in text
    assert "3  image: not an image" in text
    assert "2.0 views/s" in text


def test_a_session_with_nothing_to_do() -> None:
    session = caption_summary()["this_session"] | {"views_computed": 0}
    text = "\n".join(summary_lines(caption_summary(this_session=session, rejects=None, voters={})))
    assert "nothing to do, no model loaded" in text
    assert "Fleiss" not in text
