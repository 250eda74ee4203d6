"""The figures of captions and verdicts as plots of the report page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caslie_ray.evaluation.captions.summary import names_of_sets
from caslie_ray.evaluation.report.plots import Bar, Figure, Matrix

__all__ = ["plots_of"]


def plots_of(figures: Mapping[str, Any]) -> list[Figure | Matrix]:
    """Return the plots: against the truth if it is known, then the agreement of the voters.

    Args:
        figures: as `describe` returns them.
    """
    plots: list[Figure | Matrix] = []
    if figures["truth"]:
        plots += _against_truth(figures["truth"])
    if figures["agreement"]:
        plots += _agreement(figures["agreement"])
    return [plot for plot in plots if isinstance(plot, Matrix) or plot.bars]


def _against_truth(truth: Mapping[str, Any]) -> list[Figure]:
    captions, verdicts = truth["captions"], truth["verdicts"]
    informative = captions["informative"]
    described = [_bar(kind, captions[kind]["described_as_a_product"], "") for kind in ("placeholder", "blurred")]
    plots = [
        Figure(
            "Captions name the asked attributes",
            "Share of views with an informative image whose caption names every asked attribute correctly.",
            _bars(
                [
                    _bar("all", informative["asked_and_right"], ""),
                    *_by(informative["asked_and_right_by_attribute"], "by attribute"),
                    *_by(informative["asked_and_right_by_task"], "by task"),
                    *_by(informative["asked_and_right_by_split"], "by split"),
                    _bar("wrong product (as shown)", captions["wrong"]["asked_and_right"], "other images"),
                ]
            ),
            target=0.95,
        ),
        Figure(
            "Images without a product",
            "Share of captions that describe a product nevertheless; lower is better.",
            _bars(described),
            target=0.10,
        ),
    ]
    if context := truth["context"]:
        plots.append(
            Figure(
                "With and without context",
                "The same captioner with and without the context in its prompt: share of captions of informative images"
                f" that name the asked attributes (C.1). Mean lengths are {_words(context['conditioned'])} and"
                f" {_words(context['free'])} words. Without context the miniature captioner was trained to name size"
                " and colour.",
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
        judges.append(_bar("mean of the voters", verdicts["mean_voter"], "single voters"))
    if verdicts["use_it_always"]:
        judges.append(_bar("use it always", verdicts["use_it_always"]["balanced_accuracy"], "no vote"))
    by_task = {name: cell["balanced_accuracy"] for name, cell in verdicts["verdict_by_task"].items()}
    return [
        *plots,
        Figure(
            "Accuracy of verdicts and voters",
            "Balanced accuracy: mean of the shares of helpful and of unhelpful captions judged correctly.",
            _bars([*judges, *_by(by_task, "the run's verdict by task")]),
            target=0.90,
        ),
        Figure(
            "Errors",
            "Share of all views, by the paper's kinds of errors (E.3) that captions and verdicts can show.",
            _bars(_by(truth["errors"], "")),
        ),
    ]


def _agreement(agreement: Mapping[str, Any]) -> list[Figure | Matrix]:
    names = tuple(agreement["yes_rates"])
    differ = {frozenset(pair["voters"]): pair["disagreement"]["value"] for pair in agreement["pairs"]}
    values = tuple(tuple(differ.get(frozenset((one, other))) for other in names) for one in names)
    kappa = agreement["fleiss_kappa"]["value"]
    fleiss = f" Fleiss' κ is {kappa:.2f}." if kappa is not None else ""
    plots: list[Figure | Matrix] = [
        Figure(
            "Yes rates of the voters",
            f"On the {agreement['views']:,} views on which all voters were asked.",
            _bars(_by(agreement["yes_rates"], "")),
        )
    ]
    if differ:
        plots.append(
            Matrix(
                "Disagreement of the voters",
                f"Share of views on which two voters answer differently.{fleiss}",
                names,
                values,
            )
        )
    return plots


def _words(cell: Mapping[str, Any]) -> str:
    return f"{cell['words']['value']:.1f}"


def _by(cells: Mapping[str, Mapping[str, Any]], group: str) -> list[Bar | None]:
    return [_bar(name, cell, group) for name, cell in cells.items()]


def _bar(label: str, cell: Mapping[str, Any], group: str) -> Bar | None:
    if cell["value"] is None:
        return None
    return Bar(label, cell["value"], cell["low"], cell["high"], cell["n"], group)


def _bars(bars: list[Bar | None]) -> tuple[Bar, ...]:
    return tuple(bar for bar in bars if bar is not None)
