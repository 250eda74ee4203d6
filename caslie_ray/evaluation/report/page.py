"""Renders the report page: one HTML file with a run's plots and views, the worst first.

The file is self-contained and makes no network requests. Captions and contexts are hostile text: they are embedded as
escaped JSON and shown as text nodes only. The content security policy allows the page's own script and style sheet by
their hashes, and nothing else. Texts are truncated, so the size of the file is bounded.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from caslie_ray.evaluation.report.plots import Plot, plot_data, rounded
from caslie_ray.evaluation.report.ranking import disagreement, mean_p_yes, rank_of
from caslie_ray.evaluation.report.shown import ShownSample, ShownView
from caslie_ray.evaluation.report.text_limits import truncate, within_budget
from caslie_ray.storage.run import Run
from caslie_ray.tasks import SPLITS, TASKS

__all__ = ["PAGE_PATH", "render_page", "write_page"]

PAGE_PATH = "report/index.html"
"""Path of the page inside a run."""

_SCRIPTS = ("dom.js", "figures.js", "curves.js", "cards.js", "samples.js", "page.js")
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def render_page(
    title: str,
    facts: Sequence[tuple[str, str]],
    figures: Sequence[Plot],
    views: Sequence[ShownView],
    thumbnails: Mapping[str, str | None],
    left_out: int = 0,
    samples: Sequence[ShownSample] = (),
) -> str:
    """Return the page as one HTML text.

    Args:
        title: its heading.
        facts: labels and values that describe the run.
        figures: the plots, in order.
        views: the views, in the order of the sort option "as stored".
        thumbnails: thumbnails by image id, as `make_thumbnails` returns them. A view without one gets a placeholder.
        left_out: number of views of the run that are not on the page.
        samples: samples on which variants differ; shown with those of their views that are in `views`.
    """
    small = {view.image_id: data for view in views if (data := thumbnails.get(view.image_id))}
    numbers = {name: number for number, name in enumerate(small)}
    places = {view.view_id: number for number, view in enumerate(views)}
    voters = list(dict.fromkeys(vote.voter for view in views for vote in view.votes))
    fixed = {
        "facts": [[name, truncate(value)] for name, value in facts],
        "figures": [plot_data(figure) for figure in figures],
        "tasks": _in_order({view.task for view in views}, [task.code for task in TASKS.values()]),
        "splits": _in_order({split for view in views for split in view.splits}, SPLITS),
        "voters": voters,
        "worst": sorted(range(len(views)), key=lambda number: rank_of(views[number])),
        "leftOut": left_out,
    }

    def written(longest: int) -> str:
        shown = [_view(view, voters, numbers, longest) for view in views]
        return _json({**fixed, "views": shown, "samples": [_sample(sample, places, longest) for sample in samples]})

    folder = files("caslie_ray.evaluation.report") / "assets"
    css = (folder / "page.css").read_text("utf-8")
    js = "\n".join((folder / name).read_text("utf-8") for name in _SCRIPTS)
    parts = {
        "title": html.escape(title),
        "css": css,
        "cssHash": _hash(css),
        "js": js,
        "jsHash": _hash(js),
        "data": within_budget(written),
        "thumbnails": _json(list(small.values())),
    }
    return _SLOT.sub(lambda slot: parts[slot[1]], (folder / "page.html").read_text("utf-8"))


def write_page(run: Run, html: str) -> None:
    """Write the page to ``RUN/report/index.html`` (atomic write)."""
    run.put(run.path(PAGE_PATH), html.encode("utf-8", "replace"))


def _view(view: ShownView, voters: Sequence[str], thumbnails: Mapping[str, int], longest: int) -> dict[str, Any]:
    """Return a view as the page's script reads it, with truncated texts and without null values."""
    votes = [
        [voters.index(vote.voter), vote.answer, rounded(vote.p_yes), truncate(vote.error, longest)]
        for vote in view.votes
    ]
    cell = {
        "id": view.view_id,
        "thumbnail": thumbnails.get(view.image_id),
        "task": view.task,
        "splits": view.splits,
        "context": truncate(view.context, longest),
        "caption": truncate(view.caption, longest),
        "votes": [vote if vote[3] is not None else vote[:3] for vote in votes],
        "verdict": view.verdict,
        "error": truncate(view.error, longest),
        "truth": asdict(view.truth) if view.truth is not None else None,
        "mean": rounded(mean_p_yes(view.votes)),
        "disagreement": disagreement(view.votes),
    }
    return {name: value for name, value in cell.items() if value is not None}


def _sample(sample: ShownSample, places: Mapping[str, int], longest: int) -> dict[str, Any]:
    """Return a sample as the page's script reads it, with truncated texts and the indices of its views on the page."""
    answers = [
        asdict(one) | {"text": truncate(one.text, longest), "answer": truncate(one.answer, longest)}
        for one in sample.answers
    ]
    return {
        "task": sample.task,
        "split": sample.split,
        "text": truncate(sample.text, longest),
        "output": truncate(sample.output, longest),
        "answers": answers,
        "views": [places[view] for view in sample.views if view in places],
        "moreViews": sample.more_views,
    }


def _in_order(found: Iterable[str], known: Sequence[str]) -> list[str]:
    place = {name: number for number, name in enumerate(known)}
    return sorted(found, key=lambda name: (place.get(name, len(place)), name))


def _hash(text: str) -> str:
    """Return the CSP source expression that allows an inline script or style sheet."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    """Return JSON that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return text
