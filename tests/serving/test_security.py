"""The guard in front of the application, without models: token, origin, host, and size."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from caslie_ray.profiles import ProfileError, ServingSettings
from caslie_ray.serving._security import Guard, token_of


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    body = await request.body()
    await JSONResponse({"size": len(body)})(scope, receive, send)


def ask(guard: Guard, method: str = "POST", path: str = "/v1/predict", **more: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=guard)
        async with httpx.AsyncClient(transport=transport, base_url=more.pop("base_url", "http://localhost")) as client:
            return await client.request(method, path, **more)

    return asyncio.run(send())


def guard(token: str | None = None, *, local: bool = True, most: int = 100) -> Guard:
    return Guard(app, token, local, most)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401), ("secret", 401), ("Bearer", 401), ("Bearer wrong", 401), ("Basic secret", 401),
        ("Bearer secret", 200), ("bearer secret", 200), ("Bearer sécret", 401),
    ],
)  # fmt: skip
def test_the_token(header: str | None, status: int) -> None:
    headers = {"Authorization": header.encode()} if header is not None else {}
    response = ask(guard("secret"), headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        assert "secret" not in response.text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/page.js", "/docs"])
def test_what_needs_no_token(path: str) -> None:
    assert ask(guard("secret"), "GET", path).status_code == 200


@pytest.mark.parametrize(
    "path", ["/metrics", "/openapi.json", "/v1/models", "/v1/chat/completions", "/v1//models", "/docs/"]
)
def test_what_needs_the_token(path: str) -> None:
    assert ask(guard("secret"), "GET", path).status_code == 401


@pytest.mark.parametrize("url", ["http://localhost:8000", "http://127.0.0.1:8000", "http://[::1]:8000"])
def test_this_machine_by_its_names(url: str) -> None:
    assert ask(guard(), base_url=url).status_code == 200


@pytest.mark.parametrize("url", ["http://shop.example", "http://10.0.0.7:8000", "http://localhost.evil.example"])
def test_another_name_is_refused_without_a_token(url: str) -> None:
    assert ask(guard(), base_url=url).status_code == 403
    assert ask(guard("secret"), base_url=url, headers={"Authorization": "Bearer secret"}).status_code == 200
    assert ask(guard(local=False), base_url=url).status_code == 200


def test_a_page_of_another_site_is_refused() -> None:
    assert ask(guard(), headers={"Origin": "http://localhost"}).status_code == 200
    for origin in ("https://evil.example", "http://localhost:81", "null"):
        assert ask(guard(), headers={"Origin": origin}).status_code == 403


def test_a_large_body_is_refused_before_it_is_read() -> None:
    assert ask(guard(), content=b"x" * 100).json() == {"size": 100}
    assert ask(guard(), content=b"x" * 101).status_code == 413


def test_a_token_is_required_beyond_loopback() -> None:
    settings = ServingSettings(host="0.0.0.0")
    assert not settings.loopback
    with pytest.raises(ProfileError, match=r"CASLIE_TOKEN, or serving\.open=true"):
        token_of(settings, {}, loopback=settings.loopback)
    with pytest.raises(ProfileError, match="CASLIE_TOKEN"):
        token_of(settings, {"CASLIE_TOKEN": "  "}, loopback=False)
    assert token_of(settings, {"CASLIE_TOKEN": "abc\n"}, loopback=False) == "abc"
    assert token_of(ServingSettings(host="0.0.0.0", open=True), {}, loopback=False) is None
    assert token_of(ServingSettings(token_variable="MINE"), {"MINE": "x"}, loopback=True) == "x"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("127.9.9.9", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("shop.example", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert ServingSettings(host=host).loopback is loopback
