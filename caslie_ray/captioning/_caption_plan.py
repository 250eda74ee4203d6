"""The printed plan of a caption job."""

from __future__ import annotations

from dataclasses import dataclass, field

from caslie_ray.monitoring.progress import clock

__all__ = ["CaptionPlan"]


@dataclass
class CaptionPlan:
    """The plan of a caption job.

    Attributes:
        views: distinct views of the run.
        repeats_saved: repeats of views that were removed; None if ingest left no summary.
        done: views whose row is stored and up to date.
        missing: views to compute.
        timed: size of the timed sample, from which the figures below are extrapolated.
        calls: expected calls by model; an upper limit if nothing was timed.
        tokens: expected tokens, prompts and answers.
        seconds: expected duration, start-up included; None if nothing was timed.
        usd: expected price; None if the profile has no hourly price.
        engines: one line per model: its engine, and the reason if the engine is `auto`.
        replicas: upper limit of replicas by model; `seconds` assumes that many.
        replicas_unknown: whether some limits are a guess, because the cluster's own limit is unknown.
        room: share of the base's context that captions may take; None if none are generated.
        memory: one line per model on a GPU whose configuration can be read: the memory of a replica.
    """

    views: int
    repeats_saved: int | None
    done: int
    missing: int
    timed: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    tokens: int | None = None
    seconds: float | None = None
    usd: float | None = None
    engines: list[str] = field(default_factory=list)
    replicas: dict[str, int] = field(default_factory=dict)
    replicas_unknown: bool = False
    room: str | None = None
    memory: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the plan as printed lines."""
        saved = f" ({self.repeats_saved:,} repeats saved)" if self.repeats_saved is not None else ""
        lines = [
            f"views        {self.views:,}{saved}",
            f"in the run   {self.done:,}",
            f"to compute   {self.missing:,}",
        ]
        lines += [f"{'' if number else 'engines':<12} {line}" for number, line in enumerate(self.engines)]
        if self.room is not None:
            lines.append(f"captions in a prompt   {self.room}")
        lines += [f"{'' if number else 'GPU memory':<12} {line}" for number, line in enumerate(self.memory)]
        if self.replicas:
            up_to = "up to " if self.replicas_unknown else ""
            lines.append(
                f"replicas     {up_to}{' · '.join(f'{name} {limit}' for name, limit in self.replicas.items())}"
            )
        if not self.missing:
            return [*lines, "nothing to do: no model is loaded"]
        word = "about" if self.timed else "at most"
        lines += [f"calls        {word} {sum(self.calls.values()):,}"]
        lines += [f"  {name:<10} {calls:,}" for name, calls in self.calls.items()]
        if self.seconds is not None and self.tokens is not None:
            lines += [f"tokens       about {self.tokens:,}", f"time         about {clock(self.seconds)}"]
            lines += [f"hours        {self.seconds / 3600:.3f} (from {self.timed} views that were timed)"]
        lines.append(f"cost         ${self.usd:,.2f}" if self.usd is not None else "cost         set cost.hour_usd")
        return lines
