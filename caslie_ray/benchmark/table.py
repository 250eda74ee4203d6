"""The benchmark's result as tables that a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

__all__ = ["show"]

_DIFFERENCES = 10
_NOTE = """\
ratio: ours / other in steady state, the median of the rounds [lowest, highest]; loading and first calls are apart, as
start-up. Both sides had the same machine, views and checkpoints; where ours had more machines, the other side's rate is
multiplied by as many. Not measured: ingest, the page, downloads, object stores, and adapters in prediction."""


def show(
    entries: Sequence[Mapping[str, Any]],
    scale: Sequence[Mapping[str, Any]],
    parts: Mapping[str, float | None] | None,
    machine: Mapping[str, Any],
) -> Iterator[str]:
    """Return the lines of all tables.

    Args:
        entries: comparisons, see `entries.entries`.
        scale: sizes on an engine that answers without computing.
        parts: CPU milliseconds per view by part; None where they were not measured.
        machine: what it was measured on.
    """
    yield "  ".join(f"{name} {value}" for name, value in machine.items() if value not in (None, ""))
    yield ""
    yield from _table(
        ["", "ours", "other", "ratio", "unit"],
        [[one["name"], _number(one["ours"]), _number(one["other"]), _ratio(one), one["unit"]] for one in entries],
    )
    yield ""
    yield from _table(
        [
            "ours",
            "start s",
            "first row s",
            "with start",
            "driver MiB",
            "workers MiB",
            "store MiB",
            "busy",
            "$/M images",
        ],
        list(_rows(entries)),
    )
    if any(scale):
        yield ""
        yield "on an engine that answers without computing"
        yield from _table(
            ["views", "ms/view", "CPU ms/view", "driver MiB", "workers MiB", "store MiB"],
            [
                [
                    f"{one['views']:,}", _number(one["ms_a_view"]), _number(one["cpu_ms_a_view"]),
                    *_memory(one["memory_mib"]),
                ]
                for one in scale
            ],
        )  # fmt: skip
    if parts is not None:
        yield ""
        yield "CPU ms per view, chain with full votes: " + " · ".join(f"{k} {_number(v)}" for k, v in parts.items())
    for one in entries:
        if "unmatched" in one:
            yield ""
            yield _agreement(one)
        differences = one.get("differences")
        if differences:
            yield f"votes that differ ({len(differences)})"
            yield from (
                f"  {each['view_id'][:12]}  {each['voter']}  p(yes) {each['p_yes']:.4f}  {each['text']!r}"
                for each in differences[:_DIFFERENCES]
            )
    yield ""
    yield _NOTE


def _rows(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """One row per way that ours ran."""
    seen = set()
    for one in entries:
        name = one["name"].rpartition(" vs ")[0]
        details = one.get("ours_details")
        if not details or not details["rates"] or name in seen:
            continue
        seen.add(name)
        busy = details.get("busy_share") or {}
        yield [
            name, _number(details["start_s"]), _number(details["first_row_s"]), _number(details["rate_with_start"]),
            *_memory(details.get("memory_mib", {})), " ".join(f"{model} {share:.0%}" for model, share in busy.items()),
            _number(one.get("usd_per_million_images")),
        ]  # fmt: skip


def _agreement(one: Mapping[str, Any]) -> str:
    """What was compared, and what was not."""
    return (
        f"votes: {one['ours']:,} of {one['other']:,} compared agree; not compared:"
        f" {one['unmatched']:,} unmatched (the two sides wrote different captions, or one gave no answer),"
        f" {one['unread']:,} unread (the loop's text begins with neither yes nor no)"
    )


def _memory(memory: Mapping[str, float | None]) -> list[str]:
    return [_number(memory.get(name)) for name in ("driver", "workers", "object_store")]


def _ratio(one: Mapping[str, Any]) -> str:
    if one["ratio"] is None:
        return f"– {one['reason']}"
    return f"{one['ratio']:.3g} [{one['low']:.3g}, {one['high']:.3g}]"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True).splitlines()
