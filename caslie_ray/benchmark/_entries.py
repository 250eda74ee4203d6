"""The benchmark's result: one JSON entry per comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caslie_ray.benchmark._flops import utilisation
from caslie_ray.benchmark._ray_llm import refusal
from caslie_ray.benchmark._systems import BARE, OURS, PLAIN, PUBLISHED, RAY_LLM, Setup, Variant, variants
from caslie_ray.benchmark._timing import Timing, median, ratios, spread
from caslie_ray.benchmark._vote_agreement import Agreement, compare_votes

__all__ = ["Results", "agreement_entry", "entries"]

Results = Mapping[tuple[str, str], Sequence[Timing]]
"""Timings by system and measurement, one per round."""

_UNITS = {
    "captioning": "views/s", "voting": "votes/s", "chain": "views/s", "prediction": "answers/s",
    "training": "tokens/s",
}  # fmt: skip
_TRAINING_PASSES = 4.0
# Below this fraction of a run between first and last rows, there is no steady state.
_AT_ONCE = 0.05


def entries(setup: Setup, results: Results, peak: float | None) -> list[dict[str, Any]]:
    """Return one entry per comparison of ours with another system; a null ratio has a reason.

    Args:
        setup: what was measured.
        results: the timings.
        peak: FLOP/s of one GPU; None without a GPU, or if unknown.
    """
    compared = []
    for variant in variants(setup.profile, setup.measures):
        ours = results.get((OURS, variant.name), [])
        for other, key in _others(variant):
            theirs = results.get((other, key), [])
            reason = variant.reason or _why_not(setup, variant, other)
            if other == RAY_LLM and not reason:
                reason = _came_at_once(theirs)
            compared.append(_entry(setup, variant, other, ours, theirs, reason, peak))
    return compared


def _others(variant: Variant) -> list[tuple[str, str]]:
    if variant.measure == "training":
        return [(PLAIN, "training")]
    return [(PUBLISHED, variant.measure), (BARE, variant.bare), (RAY_LLM, variant.measure)]


def _why_not(setup: Setup, variant: Variant, other: str) -> str:
    """Return why a system was not measured; empty if it was."""
    counts = setup.workload.counts
    if variant.measure == "prediction" and not counts["questions"]:
        return "the run has no instructions of the test splits: run fuse first"
    if variant.measure == "training" and not counts["examples"]:
        return "the run has no instructions of the split train: run fuse first"
    return refusal(setup.profile, variant.measure) if other == RAY_LLM else ""


def _came_at_once(timings: Sequence[Timing]) -> str:
    """Return why there is no steady state; empty if there is.

    On few CPUs the last stage of `ray.data.llm` only starts when the model has answered everything.
    """
    shares = [(one.seconds - one.start_s) / one.seconds for one in timings if one.start_s is not None]
    at_once = bool(shares) and min(shares) < _AT_ONCE
    return f"{RAY_LLM}: all rows came at once: compare the rates with start-up" if at_once else ""


def _entry(
    setup: Setup,
    variant: Variant,
    other: str,
    ours: Sequence[Timing],
    theirs: Sequence[Timing],
    reason: str,
    peak: float | None,
) -> dict[str, Any]:
    scale = _scale(setup, variant, other, ours)
    pairs = [] if reason else ratios(ours, theirs, scale) if len(ours) == len(theirs) else []
    found = spread(pairs) if pairs else None
    failed = next(
        (f"{name}: {one.reason}" for name, side in (("ours", ours), (other, theirs)) for one in side if one.reason), ""
    )
    our_rate = median([one.rate for one in ours])
    entry: dict[str, Any] = {
        "name": f"{variant.name} vs {other}",
        "ours": _rounded(our_rate),
        "other": _rounded(_scaled(median([one.rate for one in theirs]), scale)),
        "ratio": _rounded(found.median) if found else None,
        "low": _rounded(found.low) if found else None,
        "high": _rounded(found.high) if found else None,
        "unit": _UNITS[variant.measure],
        "reason": "" if found else reason or failed or "not measured",
        "rounds": len(pairs),
        "other_scaled_by": scale,
        "ours_details": _details(ours),
        "other_details": _details(theirs),
    }
    if variant.measure in ("captioning", "chain"):
        entry["images_per_s"] = _rounded(our_rate)
        hour = setup.profile.cost.hour_usd
        entry["usd_per_million_images"] = _rounded(hour / 3600 / our_rate * 1e6) if hour and our_rate else None
    if variant.measure in ("voting", "chain"):
        entry["votes_per_s"] = _rounded(_votes_per_s(setup, variant, ours, our_rate))
    entry["flop_utilisation"] = _rounded(_utilisation(setup, variant, our_rate, peak, ours))
    return entry


def _details(timings: Sequence[Timing]) -> dict[str, Any]:
    """Return medians over rounds, and other measurements of the last successful round."""
    worked = [one for one in timings if not one.reason]
    return {
        "rates": [_rounded(one.rate) for one in timings],
        "rate_with_start": _rounded(median([one.whole_rate for one in worked])),
        "seconds": _rounded(median([one.seconds for one in worked])),
        "start_s": _rounded(median([one.start_s for one in worked])),
        "first_row_s": _rounded(median([one.first_row_s for one in worked])),
        **(worked[-1].details if worked else {}),
    }


def _scale(setup: Setup, variant: Variant, other: str, ours: Sequence[Timing]) -> float:
    """Return the ratio of our hardware to the other system's, which only uses this machine."""
    if other == RAY_LLM:
        return 1.0
    resources: Mapping[str, float] = next(
        (one.details["resources"] for one in ours if one.details.get("resources")), {}
    )
    if variant.measure == "training" and setup.profile.training.resources.gpus > 0:
        return float(setup.profile.training.num_workers.max)
    if setup.gpus and resources.get("GPU"):
        return float(resources["GPU"]) / setup.gpus
    cpus = float(resources.get("CPU", setup.cpus))
    return max(1.0, cpus / setup.cpus)


def _scaled(rate: float | None, scale: float) -> float | None:
    return None if rate is None else rate * scale


def _votes_per_s(setup: Setup, variant: Variant, ours: Sequence[Timing], rate: float | None) -> float | None:
    if variant.measure == "voting":
        return rate
    calls = median([one.details.get("calls") for one in ours])
    views = setup.workload.counts["views"]
    return None if rate is None or calls is None else rate * max(0.0, calls - views) / views


def _utilisation(
    setup: Setup, variant: Variant, rate: float | None, peak: float | None, ours: Sequence[Timing]
) -> float | None:
    """Return our FLOP utilization, from the bare engines' tokens per unit and the models' parameters."""
    if peak is None or rate is None:
        return None
    gpus = next((one.details["resources"].get("GPU", 0.0) for one in ours if one.details.get("resources")), 0.0)
    if setup.published is None or setup.bare is None:
        return None
    sizes = {phase.model: phase.parameters for chain in setup.published.chains for phase in chain.phases}
    answering = [phase for phases in setup.bare.predictions for phase in phases]
    if variant.measure == "training":
        base = next((phase.parameters for phases in setup.published.predictions for phase in phases), 0)
        return utilisation(base, rate, peak, gpus, _TRAINING_PASSES) if base else None
    if variant.measure == "prediction":
        base = next((phase.parameters for phases in setup.published.predictions for phase in phases), 0)
        tokens = sum(phase.prompt_tokens + phase.new_tokens for phase in answering)
        return utilisation(base, rate * tokens / max(1, setup.workload.counts["questions"]), peak, gpus)
    kinds = {"captioning": ("generate",), "voting": ("choose",), "chain": ("generate", "choose")}[variant.measure]
    votes = "early" if variant.bare == "chain early" else "full"
    phases = [
        phase
        for chain in setup.bare.chains
        for phase in chain.phases
        if phase.kind in kinds and (phase.kind == "generate" or phase.votes == votes)
    ]
    work = sum((phase.prompt_tokens + phase.new_tokens) * sizes.get(phase.model, 0) for phase in phases)
    units = sum(phase.rows for phase in phases) if variant.measure == "voting" else setup.workload.counts["views"]
    return utilisation(work / units, rate, peak, gpus) if units else None


def agreement_entry(setup: Setup) -> dict[str, Any] | None:
    """Return the agreement of votes read from generated text with those of `choose`; None without votes."""
    if not setup.published_votes or not setup.bare_votes:
        return None
    found: Agreement = compare_votes(setup.published_votes, setup.bare_votes)
    share = _rounded(found.share)
    return {
        "name": f"voting: agreement of choose with the votes of the {PUBLISHED}",
        "ours": found.agreed,
        "other": found.compared,
        "ratio": share,
        "low": share,
        "high": share,
        "unit": "votes",
        "reason": "" if found.compared else "no text began with yes or no",
        "unread": found.unread,
        "unmatched": found.unmatched,
        "differences": found.differences,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
