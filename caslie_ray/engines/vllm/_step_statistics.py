"""Collects vLLM's per-step statistics."""

from __future__ import annotations

import threading
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

__all__ = ["StepStatistics"]


class StepStatistics(StatLoggerBase):
    """Accumulates statistics of vLLM's steps.

    Sums: prompt tokens looked up in the prefix cache, tokens found there, and preemptions for lack of memory. Peaks:
    running requests, waiting requests, and fraction of the KV cache in use.
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
        """Log nothing."""

    def counts(self) -> dict[str, float]:
        """Return the sums and peaks so far."""
        with self._lock:
            return {name: round(value, 4) for name, value in self._counts.items()}
