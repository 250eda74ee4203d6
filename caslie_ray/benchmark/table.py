"""Renders the benchmark's result as text tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from caslie_ray.benchmark._systems import BARE

__all__ = ["show"]

_DIFFERENCES = 10
_NOTE = """\
ours / other: ratio of the steady-state rates, the median of the rounds [lowest, highest]; above 1 ours is faster.
Steady state excludes start-up: loading, first calls, and everything before the first rows. Both systems had the same
views and checkpoints; if ours had more machines, the other system's rate is multiplied by their number.
MiB: peak resident memory, without shared pages of the object store. Engines busy: seconds in model calls per second of
steady state, summed over replicas. –: not measured or unknown; dollars need cost.hour_usd, FLOP utilisation a GPU of
known peak.
Not measured: ingest, the page, downloads, object stores, and adapters in prediction."""


def show(
    entries: Sequence[Mapping[str, Any]],
    scale: Sequence[Mapping[str, Any]],
    parts: Mapping[str, float | None] | None,
    machine: Mapping[str, Any],
) -> Iterator[str]:
    """Return the lines of all tables.

    Args:
        entries: comparisons, see `_entries.entries`.
        scale: measurements by number of views, on the null engine.
        parts: CPU milliseconds per view by component; None if not measured.
        machine: the machine and versions.
    """
    yield "  ".join(f"{name} {value}" for name, value in machine.items() if value not in (None, ""))
    if machine.get("quick"):
        yield "smoke test: few views and one voter; the figures do not show how fast it is"
    yield ""
    compared = [one for one in entries if " vs " in one["name"]]
    yield "steady-state rates"
    yield from _table(
        ["", "ours", "other", "unit", "ours / other"],
        [
            [one["name"], _number(one["ours"]), _number(one["other"]), one["unit"], _ratio(one)]
            for one in compared
            if one["ratio"] is not None
        ],
    )
    if left_out := [one for one in compared if one["ratio"] is None]:
        yield ""
        yield "not compared"
        yield from (f"  {one['name']}: {one['reason']}" for one in left_out)
    yield ""
    yield "start-up and peak memory"
    yield from _table(
        [
            "",
            "start-up s",
            "first row s",
            "rate with start-up",
            "driver MiB",
            "workers MiB",
            "object store MiB",
            "engines busy",
        ],
        [*_runs(entries), *_others(entries)],
    )
    if costs := list(_costs(entries)):
        yield ""
        yield "cost, steady state"
        yield from _table(["", "images/s", "votes/s", "$ per million images", "FLOP utilisation"], costs)
    if any(scale):
        yield ""
        yield "the job's own overhead: null engine, a caption and three votes per view"
        yield from _table(
            ["views", "ms/view", "CPU ms/view", "driver MiB", "workers MiB", "object store MiB"],
            [
                [
                    f"{one['views']:,}", _number(one["ms_a_view"]), _number(one["cpu_ms_a_view"]),
                    *_memory(one["memory_mib"]),
                ]
                for one in scale
            ],
        )  # fmt: skip
        yield from (f"  {one['views']:,} views: {one['reason']}" for one in scale if one.get("reason"))
    if parts is not None:
        yield ""
        yield "CPU ms per view, chain with full votes: " + " · ".join(f"{k} {_number(v)}" for k, v in parts.items())
        yield "  job: total; ray: the remainder: Ray, transfer of rows, and the job's own code"
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


def _ours(entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield one entry per configuration of ours, with its name."""
    seen = set()
    for one in entries:
        name = one["name"].rpartition(" vs ")[0]
        details = one.get("ours_details")
        if details and details["rates"] and name not in seen:
            seen.add(name)
            yield name, one


def _runs(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for name, one in _ours(entries):
        details = one["ours_details"]
        busy = details.get("busy_share") or {}
        shares = " ".join(f"{model} {share:.0%}" for model, share in busy.items())
        yield [*_start(f"ours: {name}", details, one["unit"]), *_memory(details.get("memory_mib", {})), shares or "–"]


def _others(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield one row per other system and measure; all its processes count as workers."""
    seen = set()
    for one in entries:
        ours, _, other = one["name"].rpartition(" vs ")
        details = one.get("other_details")
        # Only the bare engine is timed separately with early exit.
        early = " (early exit)" if other == BARE and "early exit" in ours else ""
        name = f"{other}: {ours.partition(' ')[0]}{early}"
        if not details or not any(details["rates"]) or name in seen:
            continue
        seen.add(name)
        memory = details.get("memory_mib", {})
        own = {**memory, "workers": memory.get("workers", memory.get("processes"))}
        yield [*_start(name, details, one["unit"]), *_memory(own), "–"]


def _start(name: str, details: Mapping[str, Any], unit: str) -> list[str]:
    rate = details["rate_with_start"]
    total = "–" if rate is None else f"{_number(rate)} {unit}"
    return [name, _number(details["start_s"]), _number(details["first_row_s"]), total]


def _costs(entries: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    for name, one in _ours(entries):
        figures = [one.get(key) for key in ("images_per_s", "votes_per_s", "usd_per_million_images")]
        share = one.get("flop_utilisation")
        if any(figure is not None for figure in (*figures, share)):
            yield [name, *map(_number, figures), "–" if share is None else f"{share:.1%}"]


def _agreement(one: Mapping[str, Any]) -> str:
    """What was compared, and what was not."""
    return (
        f"{one['name']}: {one['ours']:,} of {one['other']:,} compared agree; not compared:"
        f" {one['unmatched']:,} unmatched (the two sides wrote different captions, or one gave no answer),"
        f" {one['unread']:,} unread (the loop's text begins with neither yes nor no)"
    )


def _memory(memory: Mapping[str, float | None]) -> list[str]:
    return [_number(memory.get(name)) for name in ("driver", "workers", "object_store")]


def _ratio(one: Mapping[str, Any]) -> str:
    if one["rounds"] == 1:
        return f"{one['ratio']:.3g} (one round)"
    return f"{one['ratio']:.3g} [{one['low']:.3g}, {one['high']:.3g}]"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return tabulate(rows, heads, tablefmt="simple", disable_numparse=True).splitlines()
