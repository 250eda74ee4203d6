"""Metrics of a gateway replica, for Prometheus: requests, their duration, and those in progress."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["CountRequests", "RequestMetrics"]

_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RequestMetrics:
    """The metrics of this process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "caslie_http_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "caslie_http_request_seconds", "Seconds from a request to the end of its response.", ["route"],
            buckets=_BUCKETS, registry=self._registry,
        )  # fmt: skip
        self.running = Gauge("caslie_http_requests_running", "Requests in progress.", registry=self._registry)

    def page(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class CountRequests:
    """ASGI middleware that counts requests.

    Args:
        app: the application.
        metrics: where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = "500", time.monotonic()

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        with self._metrics.running.track_inprogress():
            try:
                await self._app(scope, receive, note)
            finally:
                # The route, not the path: a client could fill the registry with paths.
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(route, status).inc()
                self._metrics.seconds.labels(route).observe(time.monotonic() - started)
