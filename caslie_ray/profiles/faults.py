"""Retries, and when a run gives up."""

from __future__ import annotations

from typing import Literal

from caslie_ray.profiles._base import Positive, Seconds, Settings

__all__ = ["FaultSettings"]


class FaultSettings(Settings):
    """When work is tried again and when a run gives up."""

    passes: Positive = 3
    """Passes in a row, with smaller blocks each time, that may finish nothing before the job stops with work left."""

    tries: Positive = 2
    """Times a row, alone in its block, may kill its replica before it is called poison."""

    replica_failures: Positive = 5
    """Replicas of one model that may die in a row, with no answer in between, before it counts as down."""

    load_tries: Positive = 4
    """Times a replica is loaded before it is given up. An error that another try cannot mend, such as a checkpoint that
    does not exist, ends the job at once."""

    load_pause_s: Seconds = 15.0
    """Seconds before the second try of loading a model, for instance where a hub does not answer; each later pause is
    twice as long, up to five minutes. A replica that failed through its node's fault goes to another node at once."""

    missing_voter: Literal["fail", "quorum"] = "fail"
    """A voter that cannot be loaded or kept alive: `fail` ends the job and names it; `quorum` lets the others decide,
    as long as (n + 1) / 2 of n votes are valid, and the next run asks it again. Without its captioner a job ends."""

    call_timeout_s: Seconds = 600.0
    """Seconds that a model may take over one block."""

    start_timeout_s: Seconds = 600.0
    """Seconds that a replica may take to find room, and to load its model; each try of loading has as many."""
