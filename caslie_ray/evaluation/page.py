"""The report page: one HTML file that shows a run's figures and its views, the worst first.

The file holds all that it shows and asks nothing of any network. What it shows is data: captions and contexts
are hostile text, which goes into the file as escaped JSON and onto the screen as text only. Its content security
policy allows its own script and style sheet by their hashes, and no others. Texts are cut, so that the file stays
small, whatever the rows.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from caslie_ray.evaluation._bounds import cut, within_budget
from caslie_ray.evaluation._thumbnails import thumbnails
from caslie_ray.storage.run import Run
from caslie_ray.tasks import SPLITS, TASKS

__all__ = [
    "PAGE_PATH",
    "Bar",
    "Curves",
    "Figure",
    "Grid",
    "Matrix",
    "Plot",
    "ShownAnswer",
    "ShownSample",
    "ShownTruth",
    "ShownView",
    "ShownVote",
    "disagreement",
    "mean_p_yes",
    "render_page",
    "worst_first",
    "write_page",
]

PAGE_PATH = "report/index.html"
"""Where the page lies in a run."""

_SCRIPTS = ("dom.js", "figures.js", "curves.js", "cards.js", "samples.js", "page.js")
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_SLOT = re.compile(r"\{\{(\w+)\}\}")


@dataclass(frozen=True, slots=True)
class ShownVote:
    """One voter's answer: `answer` is yes or no, None where `error` says why there is none."""

    voter: str
    answer: str | None
    p_yes: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ShownTruth:
    """What is known about a view.

    Attributes:
        usefulness: useful, useless or misleading.
        kind: what the picture is: informative, placeholder, blurred or wrong.
        product: what the product is, as a phrase.
        shown: what the picture shows, as a phrase; None where nothing can be seen.
        asks: the attributes that the context asks for.
        lacks: those of them that the text leaves open.
        helps: whether the caption that was written helps.
    """

    usefulness: str
    kind: str
    product: str
    shown: str | None
    asks: tuple[str, ...]
    lacks: tuple[str, ...]
    helps: bool


@dataclass(frozen=True, slots=True)
class ShownView:
    """One view with all that was said about it; `task` is the short code, `context` the caption prompt."""

    view_id: str
    image_id: str
    task: str
    splits: tuple[str, ...]
    context: str
    caption: str | None
    votes: tuple[ShownVote, ...]
    verdict: bool
    error: str | None
    truth: ShownTruth | None


@dataclass(frozen=True, slots=True)
class Bar:
    """One share from 0 to 1, with its interval and the number of cases behind it where they are known."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """Shares as horizontal bars; bars of one `group` stand together, `target` is a line across all of them."""

    title: str
    note: str
    bars: tuple[Bar, ...]
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """Shares between every two of some names, as a heat map; between `names` (rows) and `columns` where there are."""

    title: str
    note: str
    names: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Curves:
    """Values over steps as lines: for each name its points, (step, value)."""

    title: str
    note: str
    unit: str
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of texts; the rows of `strong` are set apart."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[int, ...] = ()


Plot = Figure | Matrix | Curves | Grid


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """What one variant of a model answered: `answer` is None where nothing can be read in its `text`."""

    variant: str
    text: str | None
    answer: str | None
    right: bool


@dataclass(frozen=True, slots=True)
class ShownSample:
    """A sample that one variant gets right and another wrong; `views` are ids, in the order of its images, and
    `more_views` is how many others it has."""

    sample_id: str
    task: str
    split: str
    text: str
    output: str
    answers: tuple[ShownAnswer, ...]
    views: tuple[str, ...]
    more_views: int = 0


def disagreement(view: ShownView) -> float:
    """Return the share of a view's valid votes that are in the minority: 0 to 0.5, 0 without any."""
    answers = [vote.answer for vote in view.votes if vote.answer is not None]
    yes = answers.count("yes")
    return min(yes, len(answers) - yes) / len(answers) if answers else 0.0


def mean_p_yes(view: ShownView) -> float | None:
    """Return the mean probability of yes over a view's votes; None without any."""
    known = [vote.p_yes for vote in view.votes if vote.p_yes is not None and math.isfinite(vote.p_yes)]
    return sum(known) / len(known) if known else None


def worst_first(views: Sequence[ShownView]) -> list[ShownView]:
    """Return the views, those most worth a look first.

    First the verdicts that the truth contradicts, the most confident ones leading; then error rows; then the rest
    by disagreement, and where that is equal, the undecided before the sure.
    """
    return sorted(views, key=_place)


def render_page(
    title: str,
    facts: Sequence[tuple[str, str]],
    figures: Sequence[Plot],
    views: Sequence[ShownView],
    images: Mapping[str, bytes],
    left_out: int = 0,
    samples: Sequence[ShownSample] = (),
) -> str:
    """Return the page as one HTML text.

    Args:
        title: its heading.
        facts: labels and values that say what was run.
        figures: the plots, in order.
        views: the views, in the order that `as stored` shows.
        images: JPEG or PNG bytes by image_id. An image that is missing or broken becomes a "no picture" tile.
        left_out: how many views of the run are not on the page.
        samples: samples on which variants differ; those of their views that are among `views` are shown with them.
    """
    used = {view.image_id for view in views}
    small = thumbnails({name: data for name, data in images.items() if name in used})
    pictures = {name: number for number, name in enumerate(name for name, data in small.items() if data)}
    places = {view.view_id: number for number, view in enumerate(views)}
    voters = list(dict.fromkeys(vote.voter for view in views for vote in view.votes))
    fixed = {
        "facts": [[name, cut(value)] for name, value in facts],
        "figures": [_figure(figure) for figure in figures],
        "tasks": _in_order({view.task for view in views}, [task.code for task in TASKS.values()]),
        "splits": _in_order({split for view in views for split in view.splits}, SPLITS),
        "voters": voters,
        "worst": sorted(range(len(views)), key=lambda number: _place(views[number])),
        "leftOut": left_out,
    }

    def written(longest: int) -> str:
        shown = [_view(view, voters, pictures, longest) for view in views]
        return _json({**fixed, "views": shown, "samples": [_sample(sample, places, longest) for sample in samples]})

    folder = files("caslie_ray.evaluation") / "_page"
    css = (folder / "page.css").read_text("utf-8")
    js = "\n".join((folder / name).read_text("utf-8") for name in _SCRIPTS)
    parts = {
        "title": html.escape(title),
        "css": css,
        "cssHash": _hash(css),
        "js": js,
        "jsHash": _hash(js),
        "data": within_budget(written),
        "pictures": _json([small[name] for name in pictures]),
    }
    return _SLOT.sub(lambda slot: parts[slot[1]], (folder / "page.html").read_text("utf-8"))


def write_page(run: Run, html: str) -> None:
    """Write the page to ``RUN/report/index.html``, whole or not at all."""
    run.put(run.path(PAGE_PATH), html.encode("utf-8", "replace"))


def _place(view: ShownView) -> tuple[int, float, float]:
    """Where a view stands among the others; the smallest is the worst."""
    mean = mean_p_yes(view)
    p_yes = 0.5 if mean is None else mean
    if view.truth is not None and view.verdict != view.truth.helps:
        return 0, -p_yes if view.verdict else p_yes - 1, 0.0
    # Without a probability nothing says that it was undecided.
    sure = 0.5 if mean is None else abs(p_yes - 0.5)
    return 1 if view.error is not None else 2, -disagreement(view), sure


def _view(view: ShownView, voters: Sequence[str], pictures: Mapping[str, int], longest: int) -> dict[str, Any]:
    """What the page's script reads of a view, its texts cut; what is unknown is left out, the file is long enough."""
    votes = [
        [voters.index(vote.voter), vote.answer, _short(vote.p_yes), cut(vote.error, longest)] for vote in view.votes
    ]
    mean, split = _short(mean_p_yes(view)), disagreement(view)
    cell = {
        "id": view.view_id,
        "picture": pictures.get(view.image_id),
        "task": view.task,
        "splits": view.splits,
        "context": cut(view.context, longest),
        "caption": cut(view.caption, longest),
        "votes": [vote if vote[3] is not None else vote[:3] for vote in votes],
        "verdict": view.verdict,
        "error": cut(view.error, longest),
        "truth": asdict(view.truth) if view.truth is not None else None,
        "mean": mean,
        "disagreement": split,
    }
    return {name: value for name, value in cell.items() if value is not None}


def _sample(sample: ShownSample, places: Mapping[str, int], longest: int) -> dict[str, Any]:
    """What the page's script reads of a sample, its texts cut; its views by their places among those of the page."""
    answers = [
        asdict(one) | {"text": cut(one.text, longest), "answer": cut(one.answer, longest)} for one in sample.answers
    ]
    return {
        "task": sample.task,
        "split": sample.split,
        "text": cut(sample.text, longest),
        "output": cut(sample.output, longest),
        "answers": answers,
        "views": [places[view] for view in sample.views if view in places],
        "moreViews": sample.more_views,
    }


def _figure(figure: Plot) -> dict[str, Any]:
    cell = asdict(figure)
    if isinstance(figure, Grid):
        return cell | {"grid": True}
    if isinstance(figure, Curves):
        lines = [[name, [[at, _short(value)] for at, value in points]] for name, points in figure.lines]
        return cell | {"lines": lines}
    if isinstance(figure, Matrix):
        return cell | {"values": [[_short(value) for value in row] for row in figure.values]}
    bars = [
        asdict(bar) | {name: _short(getattr(bar, name)) for name in ("value", "low", "high")} for bar in figure.bars
    ]
    return cell | {"bars": bars}


def _short(value: float | None) -> float | None:
    """Four digits are more than the page shows; JSON has no word for what is not a number."""
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _in_order(found: Iterable[str], known: Sequence[str]) -> list[str]:
    place = {name: number for number, name in enumerate(known)}
    return sorted(found, key=lambda name: (place.get(name, len(place)), name))


def _hash(text: str) -> str:
    """The source expression that allows an inline script or style sheet in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    """JSON that is safe inside a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char, escape in _ESCAPES.items():
        text = text.replace(char, escape)
    return text
