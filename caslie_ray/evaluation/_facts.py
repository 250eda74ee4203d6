"""The facts about a run at the head of the report page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caslie_ray.evaluation.answers.reading import describe_left_out

__all__ = ["facts_of"]


def facts_of(summary: Mapping[str, Any], label: str) -> list[tuple[str, str]]:
    """Return the labels and values at the head of the page.

    Args:
        summary: that of the job.
        label: the name of the run.
    """
    figures = summary["figures"]
    facts = [
        ("run", label),
        ("profile", str(summary["profile"])),
        ("views", f"{summary['views']:,}"),
        ("captions used", _share(figures["used"])),
        ("error rows", _share(figures["failed"])),
    ]
    truth = figures["truth"]
    if truth:
        facts += [
            ("images", " · ".join(f"{name} {_share(cell)}" for name, cell in truth["usefulness"].items())),
            ("combinations not in training", _share(truth["held_out"])),
        ]
    if left_out := summary.get("not_measured"):
        facts.append(("not measured, true answer is not an option", describe_left_out(left_out)))
    return facts


def _share(cell: Mapping[str, Any]) -> str:
    return "–" if cell["value"] is None else f"{cell['value']:.1%}"
