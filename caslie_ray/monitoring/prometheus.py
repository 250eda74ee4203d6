"""Metrics for Prometheus, through Ray: each node of the cluster exports them, with the prefix ``ray_``.

``grafana.json`` beside this file is a dashboard that shows them.
"""

from __future__ import annotations

import string
from urllib.parse import quote

from ray.util.metrics import Counter, Gauge

from caslie_ray.cluster.ray_internals import start_at_zero
from caslie_ray.hashing import content_id
from caslie_ray.monitoring.pool_stats import PoolStats

__all__ = ["GAUGES", "METRICS", "Metrics", "tag_value"]

METRICS = {
    "caslie_views_planned": "Views that this job found missing when it began.",
    "caslie_views_left": "Views of them that are not finished.",
    "caslie_views_done": "Views finished, error rows included.",
    "caslie_views_failed": "Views finished with an error row.",
    "caslie_votes_saved": "Votes not asked for, since the majority was certain.",
    "caslie_replicas": "Replicas of a model that are ready.",
    "caslie_replicas_lost": "Replicas of a model that were lost or could not start.",
    "caslie_requests": "Requests that a model has answered.",
    "caslie_tokens": "Tokens that a model has read and written.",
    "caslie_busy_seconds": "Seconds that the replicas of a model have worked.",
}
"""The metrics by name; those that only grow are exported with the ending ``_total``."""

GAUGES = ("caslie_views_planned", "caslie_views_left", "caslie_replicas")
"""Those that also fall. Ray forgets one that was not told for 20 seconds."""

# Prometheus has a label `job` of its own, and would rename ours.
_TAGS = ("run", "job_name")
_MAX_TAG = 200
_PLAIN = "".join(sorted({*string.punctuation, " "} - {"%"}))


def tag_value(text: str) -> str:
    """Return a text as the value of a metric's tag, which Ray takes in ASCII alone.

    Everything but printable ASCII is percent-encoded as UTF-8, and so is ``%`` itself. Of a text that is then longer
    than 200 characters the end is kept, behind a hash of the text. An empty text becomes ``-``: Prometheus takes an
    empty label for one that is missing.
    """
    encoded = quote(text, safe=_PLAIN, encoding="utf-8", errors="surrogatepass") or "-"
    if len(encoded) <= _MAX_TAG:
        return encoded
    prefix = f"{content_id(encoded)[:12]}..."
    return prefix + encoded[len(prefix) - _MAX_TAG :]


class Metrics:
    """What one job says of itself.

    Args:
        run: the run, as it may be shown.
        job: what is being done.
    """

    def __init__(self, run: str, job: str) -> None:
        keys = {name: (*_TAGS, "model") if _of_model(name) else _TAGS for name in METRICS}
        self._gauges = {name: Gauge(name, METRICS[name], keys[name]) for name in GAUGES}
        self._counters = {name: Counter(name, METRICS[name], keys[name]) for name in METRICS if name not in GAUGES}
        for metric in (*self._gauges.values(), *self._counters.values()):
            metric.set_default_tags(dict(zip(_TAGS, (tag_value(run), tag_value(job)), strict=True)))
        self._told: dict[tuple[str, str], float] = {}
        for name in self._counters:
            if not _of_model(name):
                self._begin(name)

    def views(self, planned: int, left: int) -> None:
        """Say how many views are to be done, and how many of them still are; to be said again and again."""
        self._gauges["caslie_views_planned"].set(planned)
        self._gauges["caslie_views_left"].set(left)

    def done(self, views: int, failed: int, saved: int) -> None:
        """Say that more views are done."""
        for name, more in (("views_done", views), ("views_failed", failed), ("votes_saved", saved)):
            if more:
                self._counters[f"caslie_{name}"].inc(more)

    def model(self, stats: PoolStats) -> None:
        """Say what a model has done so far; to be said again and again."""
        model = tag_value(stats.name)
        self._gauges["caslie_replicas"].set(stats.ready, {"model": model})
        self._grow("caslie_replicas_lost", model, stats.deaths)
        self._grow("caslie_requests", model, stats.requests)
        self._grow("caslie_tokens", model, stats.prompt_tokens + stats.new_tokens)
        self._grow("caslie_busy_seconds", model, stats.busy_s)

    def _grow(self, name: str, model: str, value: float) -> None:
        if (name, model) not in self._told:
            self._begin(name, {"model": model})
        more = value - self._told.setdefault((name, model), 0.0)
        if more > 0:
            self._counters[name].inc(more, {"model": model})
            self._told[name, model] = value

    def _begin(self, name: str, tags: dict[str, str] | None = None) -> None:
        # To Prometheus a series that begins at 1 has not risen: the first replica lost would not be seen.
        start_at_zero(self._counters[name], tags)


def _of_model(name: str) -> bool:
    return not name.startswith(("caslie_views_", "caslie_votes_"))
