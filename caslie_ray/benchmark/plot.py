"""Plots the ratios: one bar per comparison on a logarithmic axis, with the spread over rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

__all__ = ["plot"]

_ROW, _LEFT, _WIDTH, _RIGHT, _TOP = 26, 380, 420, 200, 44
_TITLE = "ours / other: ratio of steady-state rates, above 1 ours is faster"
_OURS, _OTHER, _LINE = "#2a6f97", "#b5651d", "#333333"


def _tick(power: int) -> str:
    return f"1/{2**-power}" if power < 0 else str(2**power)


def _range(one: Mapping[str, Any]) -> str:
    return " (one round)" if one["rounds"] == 1 else f" ({one['low']:.3g} to {one['high']:.3g})"


def plot(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG of the comparisons that have a ratio; 1 means equally fast."""
    shown = [one for one in entries if one["ratio"] and " vs " in one["name"]]
    limits = [value for one in shown for value in (one["low"], one["high"])] or [1.0]
    low = min(0.5, *limits)
    high = max(2.0, *limits)
    ends = math.floor(math.log2(low)), math.ceil(math.log2(high))

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (math.log2(value) - ends[0]) / (ends[1] - ends[0])

    height = _TOP + _ROW * len(shown) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + _RIGHT}" height="{height}"'
        ' font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT + _WIDTH / 2}" y="16" text-anchor="middle">{_TITLE}</text>',
    ]
    for power in range(ends[0], ends[1] + 1):
        at = x(2.0**power)
        stroke = _LINE if power == 0 else "#dddddd"
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP - 6}" x2="{at:.1f}" y2="{height - 10}" stroke="{stroke}"/>')
        parts.append(f'<text x="{at:.1f}" y="{_TOP - 12}" text-anchor="middle" fill="#777777">{_tick(power)}</text>')
    for row, one in enumerate(shown):
        y = _TOP + _ROW * row
        begin, end = sorted((x(1), x(one["ratio"])))
        colour = _OURS if one["ratio"] >= 1 else _OTHER
        middle = y + _ROW / 2
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(one["name"])}</text>',
            f'<rect x="{begin:.1f}" y="{y + 5}" width="{max(1.0, end - begin):.1f}" height="{_ROW - 10}"'
            f' fill="{colour}"/>',
            f'<line x1="{x(one["low"]):.1f}" y1="{middle}" x2="{x(one["high"]):.1f}" y2="{middle}" stroke="{_LINE}"'
            ' stroke-width="2"/>',
            f'<text x="{_LEFT + _WIDTH + 8}" y="{middle + 4:.1f}">{one["ratio"]:.3g}×{_range(one)}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
