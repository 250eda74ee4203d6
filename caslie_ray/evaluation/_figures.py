"""The figures of an evaluation as plots of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caslie_ray.evaluation._answers import describe_left_out
from caslie_ray.evaluation.page import Bar, Figure, Matrix

__all__ = ["facts_of", "figures_of", "names_of_sets"]


def facts_of(summary: Mapping[str, Any], label: str) -> list[tuple[str, str]]:
    """Return what the head of the page says, as labels and values; `label` names the run."""
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
            ("pictures", " · ".join(f"{name} {_share(cell)}" for name, cell in truth["usefulness"].items())),
            ("combinations held out from training", _share(truth["held_out"])),
        ]
    if left_out := summary.get("not_measured"):
        facts.append(("not measured, true answer is none of the options", describe_left_out(left_out)))
    return facts


def figures_of(figures: Mapping[str, Any]) -> list[Figure | Matrix]:
    """Return the plots: against the truth where it is known, then the agreement of the voters."""
    plots: list[Figure | Matrix] = []
    if figures["truth"]:
        plots += _against_truth(figures["truth"])
    if figures["agreement"]:
        plots += _agreement(figures["agreement"])
    return [plot for plot in plots if isinstance(plot, Matrix) or plot.bars]


def names_of_sets(sets: Sequence[Sequence[str]]) -> list[str]:
    """Return what sets of voters are called: by their number where that tells them apart, as in Table A4."""
    sizes = [len(names) for names in sets]
    return [f"of {len(names)}" if sizes.count(len(names)) == 1 else ", ".join(names) for names in sets]


def _against_truth(truth: Mapping[str, Any]) -> list[Figure]:
    captions, verdicts = truth["captions"], truth["verdicts"]
    informative = captions["informative"]
    described = [_bar(kind, captions[kind]["described_as_a_product"], "") for kind in ("placeholder", "blurred")]
    plots = [
        Figure(
            "Captions name what is asked",
            "Share of views with an informative picture whose caption names every asked attribute rightly.",
            _bars(
                [
                    _bar("all", informative["asked_and_right"], ""),
                    *_by(informative["asked_and_right_by_attribute"], "by attribute"),
                    *_by(informative["asked_and_right_by_task"], "by task"),
                    *_by(informative["asked_and_right_by_split"], "by split"),
                    _bar("wrong product (what it shows)", captions["wrong"]["asked_and_right"], "other pictures"),
                ]
            ),
            target=0.95,
        ),
        Figure(
            "Pictures without a product",
            "Share of captions that describe a product all the same: lower is better.",
            _bars(described),
            target=0.10,
        ),
    ]
    if context := truth["context"]:
        plots.append(
            Figure(
                "With and without context",
                "The same captioner, told the context or not: share of captions of informative pictures that name what"
                f" the context asks for (C.1). Mean lengths are {_words(context['conditioned'])} and"
                f" {_words(context['free'])} words. Without context the miniature captioner was taught to name size and"
                " colour.",
                _bars([_bar(name, context[name]["asked_and_right"], "") for name in ("conditioned", "free")]),
            )
        )
    judges = [_bar("the run's verdict", verdicts["verdict"]["balanced_accuracy"], "")]
    sizes = names_of_sets([cell["voters"] for cell in verdicts["majorities"]])
    judges += [
        _bar(name, cell["balanced_accuracy"], "majorities")
        for name, cell in zip(sizes, verdicts["majorities"], strict=True)
    ]
    judges += [_bar(name, cell["balanced_accuracy"], "single voters") for name, cell in verdicts["voters"].items()]
    if verdicts["mean_voter"]:
        judges.append(_bar("their mean", verdicts["mean_voter"], "single voters"))
    if verdicts["use_it_always"]:
        judges.append(_bar("use it always", verdicts["use_it_always"]["balanced_accuracy"], "no vote"))
    by_task = {name: cell["balanced_accuracy"] for name, cell in verdicts["verdict_by_task"].items()}
    return [
        *plots,
        Figure(
            "Who judges captions rightly",
            "Balanced accuracy: the mean of the shares of helpful and of unhelpful captions judged rightly.",
            _bars([*judges, *_by(by_task, "the run's verdict by task")]),
            target=0.90,
        ),
        Figure(
            "What goes wrong",
            "Share of all views. After the paper's kinds of error (E.3), as far as captions and verdicts tell.",
            _bars(_by(truth["errors"], "")),
        ),
    ]


def _agreement(agreement: Mapping[str, Any]) -> list[Figure | Matrix]:
    names = tuple(agreement["yes_rates"])
    differ = {frozenset(pair["voters"]): pair["disagreement"]["value"] for pair in agreement["pairs"]}
    values = tuple(tuple(differ.get(frozenset((one, other))) for other in names) for one in names)
    kappa = agreement["fleiss_kappa"]["value"]
    said = f" Fleiss' κ is {kappa:.2f}." if kappa is not None else ""
    plots: list[Figure | Matrix] = [
        Figure(
            "How often voters say yes",
            f"On the {agreement['views']:,} views on which all were asked.",
            _bars(_by(agreement["yes_rates"], "")),
        )
    ]
    if differ:
        plots.append(
            Matrix(
                "Where voters differ", f"Share of views on which two voters answer differently.{said}", names, values
            )
        )
    return plots


def _words(cell: Mapping[str, Any]) -> str:
    return f"{cell['words']['value']:.1f}"


def _share(cell: Mapping[str, Any]) -> str:
    return "–" if cell["value"] is None else f"{cell['value']:.1%}"


def _by(cells: Mapping[str, Mapping[str, Any]], group: str) -> list[Bar | None]:
    return [_bar(name, cell, group) for name, cell in cells.items()]


def _bar(label: str, cell: Mapping[str, Any], group: str) -> Bar | None:
    if cell["value"] is None:
        return None
    return Bar(label, cell["value"], cell["low"], cell["high"], cell["n"], group)


def _bars(bars: list[Bar | None]) -> tuple[Bar, ...]:
    return tuple(bar for bar in bars if bar is not None)
