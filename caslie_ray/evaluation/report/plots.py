"""Plots and tables of the report page, as data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Bar", "Curves", "Figure", "Grid", "Matrix", "Plot", "plot_data", "rounded"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One share from 0 to 1; its interval and number of cases if known."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """Shares as horizontal bars, grouped by `group`; `target` is a reference line across all bars."""

    title: str
    note: str
    bars: tuple[Bar, ...]
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """Shares per pair of names, as a heat map. Rows are `names`; columns are `columns`, or `names` if empty."""

    title: str
    note: str
    names: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Curves:
    """Line plot: for each name its points (step, value)."""

    title: str
    note: str
    unit: str
    lines: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of texts; rows with an index in `strong` are highlighted."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: tuple[int, ...] = ()


Plot = Figure | Matrix | Curves | Grid


def plot_data(plot: Plot) -> dict[str, Any]:
    """Return a plot as the page's script reads it."""
    cell = asdict(plot)
    if isinstance(plot, Grid):
        return cell | {"grid": True}
    if isinstance(plot, Curves):
        lines = [[name, [[at, rounded(value)] for at, value in points]] for name, points in plot.lines]
        return cell | {"lines": lines}
    if isinstance(plot, Matrix):
        return cell | {"values": [[rounded(value) for value in row] for row in plot.values]}
    bars = [asdict(bar) | {name: rounded(getattr(bar, name)) for name in ("value", "low", "high")} for bar in plot.bars]
    return cell | {"bars": bars}


def rounded(value: float | None) -> float | None:
    """Return a value with the four digits that the page shows; None for NaN and infinity, which JSON lacks."""
    return round(value, 4) if value is not None and math.isfinite(value) else None
