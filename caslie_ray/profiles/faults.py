"""Retries, and when a run gives up."""

from __future__ import annotations

from typing import Literal

from caslie_ray.profiles._base import Positive, Seconds, Settings

__all__ = ["FaultSettings"]


class FaultSettings(Settings):
    """Retries, and when a run gives up."""

    passes: Positive = 3
    """Consecutive passes without progress, with smaller blocks each, before the job stops with work left."""

    tries: Positive = 2
    """Times that a row, alone in its block, may kill its replica before it becomes an error row (poison)."""

    replica_failures: Positive = 5
    """Consecutive deaths of replicas of a model, without an answer in between, before it counts as down."""

    load_tries: Positive = 4
    """Tries to load a replica. A permanent error, such as a checkpoint that does not exist, ends the job at once."""

    load_pause_s: Seconds = 15.0
    """Seconds before the second try to load a model, for instance if a hub does not answer; doubled each time, up to
    five minutes. A replica that failed because of its node moves to another node at once."""

    missing_voter: Literal["fail", "quorum"] = "fail"
    """A voter that cannot be loaded or kept alive: `fail` ends the job and names it; `quorum` lets the others decide
    while (n + 1) / 2 of n votes are valid, and the next run asks it again. Without its captioner a job always ends."""

    call_timeout_s: Seconds = 600.0
    """Seconds that a model may take per engine call: 64 requests in full batches, or one batch."""

    start_timeout_s: Seconds = 600.0
    """Seconds for a replica to be scheduled, and again to load its model; per try."""
