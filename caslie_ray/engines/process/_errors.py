"""Errors that callers of an engine process can catch."""

from __future__ import annotations

from caslie_ray.engines import Failure
from caslie_ray.errors import EngineError

__all__ = ["Cancelled", "EngineDown", "RequestFailed"]


class EngineDown(EngineError):
    """The engine cannot be loaded any more, or does not stay alive. It answers nothing after this."""


class Cancelled(EngineError):
    """The caller has cancelled the call."""


class RequestFailed(EngineError):
    """A streamed request has no answer, or only the part that was already yielded.

    Args:
        failure: why.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure

    def __reduce__(self) -> tuple[type[RequestFailed], tuple[Failure]]:
        return type(self), (self.failure,)
