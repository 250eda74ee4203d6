"""The gateway's calls to the models: time limits, retries after a lost replica, and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle

from caslie_ray.engines import Choice, Generation, Request
from caslie_ray.errors import ModelUnavailable
from caslie_ray.roles import Role
from caslie_ray.serving._model import Answered
from caslie_ray.serving._plan import ServingPlan
from caslie_ray.serving._problems import ApiError

__all__ = ["Calls", "ModelBusy", "Models", "check_answered", "problem_of"]

_BUSY_S = 1.0
_DOWN_S = 5.0
# Further tries of a request whose replica was lost. It may have been the request's fault.
_RETRIES = 2


class ModelBusy(Exception):
    """The queue of a model is full; `name` is the model's."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the queue of {name} is full")
        self.name = name


class Models:
    """The deployments of the models, and whether each is loaded.

    Args:
        plan: what is served.
        handles: by the names of deployments.
    """

    def __init__(self, plan: ServingPlan, handles: Mapping[str, DeploymentHandle[Any]]) -> None:
        self.plan = plan
        self._handles = dict(handles)
        self._loading = {name: asyncio.ensure_future(self._wait_for(name)) for name in handles}

    def loading(self) -> list[str]:
        """Return the names of the deployments that were not ready yet."""
        return [name for name, task in self._loading.items() if not task.done()]

    def failed(self) -> dict[str, str]:
        """Return why deployments cannot be started, by name."""
        done = {name: task for name, task in self._loading.items() if task.done() and not task.cancelled()}
        return {name: str(task.exception()) for name, task in done.items() if task.exception() is not None}

    def handle(self, name: str) -> DeploymentHandle[Any]:
        """Return the handle of a deployment."""
        return self._handles[name]

    def close(self) -> None:
        """Stop waiting for models that are still loading."""
        for task in self._loading.values():
            task.cancel()

    async def _wait_for(self, name: str) -> None:
        while True:
            try:
                await self._handles[name].ready.remote()
                return
            except DeploymentUnavailableError:
                raise
            except RayError:  # a replica was lost while it loaded
                await asyncio.sleep(1.0)


class Calls:
    """The calls of one HTTP request; see `caslie_ray.captioning.online.AsyncAsk`.

    Args:
        models: the deployments.
        deadline: of the request, in the time of the event loop.

    Attributes:
        fingerprints: of the models that answered, by the names of roles and adapters.
        changed: whether a replica had another fingerprint than this gateway expects, as during a rolling update.
    """

    def __init__(self, models: Models, deadline: float) -> None:
        self._models = models
        self._deadline = deadline
        self.fingerprints: dict[str, str] = {}
        self.changed = False

    async def generate(self, role: Role, request: Request) -> Generation:
        """Return the generated text.

        Raises:
            ModelUnavailable: the model has no replica, or its replicas were lost.
            ModelBusy: its queue is full.
            TimeoutError: the deadline has passed.
        """
        result: Generation = await self._ask(role, request, None, lambda handle: handle.generate.remote(request))
        return result

    async def choose(self, role: Role, request: Request, choices: Sequence[str]) -> Choice:
        """Return the probability of each choice. A voter has `serving.voter_timeout_s`.

        Raises:
            ModelUnavailable: the model has no replica, its replicas were lost, or a voter took too long.
            ModelBusy: its queue is full.
            TimeoutError: the deadline has passed.
        """
        plan = self._models.plan
        limit = plan.profile.serving.voter_timeout_s if role.name != plan.base.name else None
        result: Choice = await self._ask(
            role, request, limit, lambda handle: handle.choose.remote(request, tuple(choices))
        )
        return result

    async def stream(self, role: Role, request: Request) -> AsyncGenerator[str | Generation]:
        """Yield an answer in pieces, and then the `Generation`.

        Raises:
            ModelUnavailable: the model has no replica, or its replica was lost.
            ModelBusy: its queue is full.
            TimeoutError: the deadline has passed.
        """
        name = self._models.plan.deployment_of(role)
        self._check_loaded(name)
        pieces: Any = self._models.handle(name).options(stream=True).stream.remote(request)
        try:
            while True:
                try:
                    async with asyncio.timeout_at(self._deadline):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                yield piece
        except BackPressureError:
            raise ModelBusy(name) from None
        except (DeploymentUnavailableError, RayError) as error:
            raise ModelUnavailable(f"{name}: {_first_line(error)}") from None
        finally:
            pieces.cancel()

    async def _ask(
        self,
        role: Role,
        request: Request,
        limit_s: float | None,
        send: Callable[[DeploymentHandle[Any]], Any],
    ) -> Any:
        name = self._models.plan.deployment_of(role)
        self._check_loaded(name)
        now = asyncio.get_running_loop().time()
        limited = limit_s is not None and now + limit_s < self._deadline
        until = now + limit_s if limit_s is not None and limited else self._deadline
        try:
            async with asyncio.timeout_at(until):
                answered = await self._retried(name, lambda: send(self._models.handle(name)))
        except TimeoutError:
            if not limited:
                raise
            raise ModelUnavailable(f"{name}: no answer within {limit_s:g} s") from None
        # One name per answer: the adapter's, or the role's.
        answers_as = request.adapter or role.name
        found = answered.fingerprints.get(answers_as, "")
        self.fingerprints[answers_as] = found
        self.changed |= found != self._expected(role, request.adapter)
        return answered.result

    def _expected(self, role: Role, adapter: str | None) -> str:
        if adapter is None:
            return role.fingerprint
        return next(one.fingerprint for one in self._models.plan.answerers.values() if one.adapter == adapter)

    def _check_loaded(self, name: str) -> None:
        if (why := self._models.failed().get(name)) is not None:
            raise ModelUnavailable(f"{name} cannot be started: {why.splitlines()[0]}")

    @staticmethod
    async def _retried(name: str, send: Callable[[], Any]) -> Answered:
        for attempt in range(_RETRIES + 1):
            try:
                return await _cancelled_with_caller(send())
            except BackPressureError:
                raise ModelBusy(name) from None
            except (DeploymentUnavailableError, RequestCancelledError) as error:
                raise ModelUnavailable(f"{name}: {_first_line(error)}") from None
            except RayError as error:
                if attempt == _RETRIES:
                    raise ModelUnavailable(f"{name}: {_first_line(error)}") from None
        raise AssertionError("the last try either returns or raises")


def problem_of(error: TimeoutError | ModelBusy | ModelUnavailable, seconds: float, advice: str = "") -> ApiError:
    """Return the problem of a request whose models did not answer.

    Args:
        error: what `Calls` raised.
        seconds: that the request had.
        advice: what to change if the deadline has passed.
    """
    if isinstance(error, ModelBusy):
        return ApiError(429, f"{error}: try again later", retry_after_s=_BUSY_S)
    if isinstance(error, TimeoutError):
        return ApiError(504, f"no answer within {seconds:g} s{advice}")
    return ApiError(503, str(error), retry_after_s=_DOWN_S)


def check_answered(answer: Generation) -> None:
    """Check that a request was answered.

    Raises:
        ApiError: it was not.
    """
    if answer.failure is not None:
        raise ApiError(503 if answer.failure.retryable else 422, answer.failure.reason)


async def _cancelled_with_caller(response: Any) -> Answered:
    """Await a response; if the caller is cancelled, or times out, cancel the request in its replica."""
    try:
        answered: Answered = await response
        return answered
    except asyncio.CancelledError:
        response.cancel()
        raise


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0][:200]
