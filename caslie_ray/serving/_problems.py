"""Errors as problem details (RFC 9457): a status, a title, what to change, and never a stack trace."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

__all__ = ["ApiError", "problem"]

_OPENAI = ("/v1/chat/", "/v1/models")
_TITLES = {
    400: "The request cannot be read",
    401: "A bearer token is required",
    403: "Requests from other sites are refused",
    404: "There is nothing at this address",
    405: "This address does not take this method",
    413: "The request is too large",
    415: "This content type is not supported",
    422: "A value in the request is not valid",
    429: "Too many requests",
    500: "The server failed on this request",
    503: "A model is not available",
    504: "The deadline has passed",
}


class ApiError(Exception):
    """An error for the client.

    Args:
        status: HTTP status.
        detail: one sentence: what is wrong, and what to change.
        field: name of the value that is wrong, with its path.
        retry_after_s: seconds after which another try makes sense.
    """

    def __init__(
        self, status: int, detail: str, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field
        self.retry_after_s = retry_after_s

    def at(self, prefix: str) -> ApiError:
        """Return the error with its field below another one."""
        field = f"{prefix}.{self.field}" if self.field else prefix
        return ApiError(self.status, self.detail, field=field, retry_after_s=self.retry_after_s)

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the problem details."""
        found: dict[str, Any] = {
            "type": "about:blank",
            "title": _TITLES.get(self.status, "The request failed"),
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
        }
        if self.field is not None:
            found["field"] = self.field
        if self.retry_after_s is not None:
            found["retry_after_s"] = self.retry_after_s
        return found


def problem(error: ApiError, request_id: str, path: str) -> JSONResponse:
    """Return an error as an HTTP response.

    Args:
        error: the error.
        request_id: of the request.
        path: of the request; OpenAI clients read an object `error` in addition.
    """
    headers = {}
    body = error.body(request_id)
    if path.startswith(_OPENAI):
        body["error"] = {"message": error.detail, "type": body["title"], "param": error.field, "code": error.status}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status_code=error.status, headers=headers, media_type="application/problem+json")
