"""Checks before a request is read: bearer token, origin, host, and size; and headers of every response."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caslie_ray.profiles import ProfileError, ServingSettings
from caslie_ray.serving._problems import ApiError, problem

__all__ = ["Guard", "token_of"]

# Answered without a token: what load balancers ask, and the page, which has no data of its own.
_PUBLIC = {"/healthz", "/readyz", "/", "/page.js", "/page.css", "/docs", "/docs.js", "/examples.json"}
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def token_of(settings: ServingSettings, environment: Mapping[str, str], *, loopback: bool) -> str | None:
    """Return the bearer token that clients must send; None if they need none.

    Args:
        settings: name the variable.
        environment: contains it.
        loopback: whether only this machine can connect.

    Raises:
        ProfileError: a token is required and there is none.
    """
    token = environment.get(settings.token_variable, "").strip()
    if token:
        return token
    if loopback or settings.open:
        return None
    raise ProfileError(
        f"serving: other machines can connect, so a token is required: set the environment variable"
        f" {settings.token_variable}, or serving.open=true if something else authenticates clients"
    )


class Guard:
    """ASGI middleware; see the module's docstring. Gives each request an id, in `scope["state"]["request_id"]`.

    Args:
        app: the application.
        token: that clients must send; None: none.
        local: whether only this machine can connect: then the request must name it, so that no web page reaches the
            server under another name (DNS rebinding).
        max_body_bytes: upper limit of a body.
    """

    def __init__(self, app: ASGIApp, token: str | None, local: bool, max_body_bytes: int) -> None:
        self._app = app
        self._token = token
        self._local = local
        self._most = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # Serve's proxy gives each request an id, and returns it with the response.
        given = headers.get("x-request-id")
        request_id = given or secrets.token_hex(8)
        added = _HEADERS if given else {**_HEADERS, "X-Request-ID": request_id}
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def respond(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                out = MutableHeaders(scope=message)
                for name, value in added.items():
                    out.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["path"], headers)
            await self._app(scope, self._limited(receive), respond)
        except ApiError as error:
            if started:
                raise
            await problem(error, request_id, scope["path"])(scope, receive, respond)

    def _check(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._local and self._token is None and _name_of(host) not in _LOCAL_HOSTS:
            raise ApiError(403, "this server answers requests to localhost only: call it by that name")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise ApiError(403, "a page of another site may not call this server")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._most:
            raise ApiError(413, self._too_large())
        if self._token is not None and path not in _PUBLIC:
            scheme, _, token = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self._token.encode()):
                raise ApiError(401, "send the header Authorization: Bearer TOKEN, with the token of this server")

    def _limited(self, receive: Receive) -> Receive:
        """Count the bytes of a body whose length was not announced."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most:
                raise ApiError(413, self._too_large())
            return message

        return limited

    def _too_large(self) -> str:
        return f"the body is larger than {self._most:,} bytes (serving.max_body_bytes): send fewer or smaller images"


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
