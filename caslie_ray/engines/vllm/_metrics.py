"""What vLLM tells of its own work."""

from __future__ import annotations

import threading
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

__all__ = ["Meter"]


class Meter(StatLoggerBase):
    """Adds up what vLLM says of each step.

    It counts prompt tokens that were looked up in the prefix cache and those found there, requests that gave way
    for lack of memory, and the most requests at work, requests in wait, and share of the KV cache in use.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, float] = {
            "prefix_cache_tokens": 0,
            "prefix_cache_hits": 0,
            "preemptions": 0,
            "running_peak": 0,
            "waiting_peak": 0,
            "kv_cache_peak": 0,
        }

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Add one step."""
        with self._lock:
            counts = self._counts
            if scheduler_stats is not None:
                counts["prefix_cache_tokens"] += scheduler_stats.prefix_cache_stats.queries
                counts["prefix_cache_hits"] += scheduler_stats.prefix_cache_stats.hits
                counts["running_peak"] = max(counts["running_peak"], scheduler_stats.num_running_reqs)
                counts["waiting_peak"] = max(counts["waiting_peak"], scheduler_stats.num_waiting_reqs)
                counts["kv_cache_peak"] = max(counts["kv_cache_peak"], scheduler_stats.kv_cache_usage)
            if iteration_stats is not None:
                counts["preemptions"] += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Say nothing."""

    def counts(self) -> dict[str, float]:
        """What was added up so far."""
        with self._lock:
            return {name: round(value, 4) for name, value in self._counts.items()}
