"""Health, metrics, headers and the OpenAPI document."""

from __future__ import annotations

from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serving.server import Server
from tests.serving.test_bad_requests import GOOD


def test_ready_and_healthy(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").json() == {"status": "ready", "failed": {}}


def test_metrics_count_routes_and_not_paths(client: httpx.Client) -> None:
    client.post("/v1/predict", json=GOOD)
    client.get("/no/such/place")
    page = client.get("/metrics").text
    assert 'caslie_http_requests_total{route="/v1/predict",status="200"}' in page
    assert "no/such/place" not in page
    assert "caslie_http_request_seconds_bucket" in page


def test_every_response_has_safe_headers_and_an_id(client: httpx.Client) -> None:
    for path in ("/", "/healthz", "/openapi.json", "/nothing"):
        headers = client.get(path, headers={"X-Request-ID": "mine-1"}).headers
        assert headers["x-request-id"] == "mine-1"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_pages_name_no_other_host(client: httpx.Client) -> None:
    for path in ("/", "/page.js", "/page.css", "/docs", "/docs.js"):
        response = client.get(path)
        assert response.status_code == 200
        assert "://" not in response.text


def test_generated_requests_get_described_responses(server: Server) -> None:
    """Schemathesis generates requests from the OpenAPI document, valid and not; no response is a server error."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")

    for operation in schema.get_all_operations():
        assert isinstance(operation, Ok)
        _try(operation.ok())


def _try(operation: Any) -> None:
    @settings(
        max_examples=4, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def check(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500 or response.status_code == 504, response.text
        # Schemas cannot say which fields a task has.
        case.validate_response(response, excluded_checks=[positive_data_acceptance])

    check()
