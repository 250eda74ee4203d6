"""Limits of an engine process: time, memory, and retries."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ProcessLimits"]


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of an engine process.

    Attributes:
        tries: times that a row, alone in the process, may end it before the row gets a `Failure`.
        call_timeout_s: seconds that a call may compute; a call that shares the engine with others has as many for
            each call that the engine computes at once.
        failures_in_a_row: failures without an answer in between after which the engine must answer a call that it
            has answered before; if it cannot, it is down.
        start_timeout_s: seconds that the process may take to load the model.
        load_tries: tries to load the model, where another try may help.
        load_pause_s: seconds before the second try to load; each later pause is twice as long, up to five minutes.
        close_timeout_s: seconds that the engine may take to close before its process is killed.
        memory_share: share of the machine's (or container's) memory in use above which the process is ended. Below
            Ray's own threshold (0.95), so that the process goes before the actor that owns it.
        memory_bytes: resident memory that the process and its descendants may use together; None sets no limit.
    """

    tries: int = 2
    call_timeout_s: float = 600.0
    failures_in_a_row: int = 5
    start_timeout_s: float = 600.0
    load_tries: int = 4
    load_pause_s: float = 15.0
    close_timeout_s: float = 20.0
    memory_share: float = 0.93
    memory_bytes: int | None = None
