"""The HTTP application: routes, their documentation, and errors."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from caslie_ray import __version__
from caslie_ray.serving._bodies import read_batch, read_body, validated
from caslie_ray.serving._describe import describe
from caslie_ray.serving._metrics import CountRequests, RequestMetrics
from caslie_ray.serving._openai import ChatRequest, complete, list_models, stream_chunks
from caslie_ray.serving._page import add_page
from caslie_ray.serving._problems import ApiError, problem
from caslie_ray.serving._schemas import CaptionRequest, PredictRequest, VotesRequest
from caslie_ray.serving._security import Guard
from caslie_ray.serving._service import Service

__all__ = ["build_app"]

log = logging.getLogger(__name__)

_CLOSED = 499  # as nginx logs a connection that the client closed

_Answer = Callable[[Any, list[bytes], str], Awaitable[BaseModel]]


def build_app(service: Service, token: str | None, *, local: bool) -> FastAPI:
    """Return the application.

    Args:
        service: answers requests.
        token: bearer token that clients must send; None: none.
        local: whether only this machine can connect.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.reader:
            yield
        service.models.close()

    app = FastAPI(title="CASLIE", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    metrics = RequestMetrics()
    started = int(time.time())
    settings = service.plan.profile.serving

    async def caption(request: CaptionRequest, uploads: list[bytes], request_id: str) -> BaseModel:
        return await service.caption(request, uploads, request_id)

    async def votes(request: VotesRequest, uploads: list[bytes], request_id: str) -> BaseModel:
        return await service.votes(request, request_id)

    async def predict(request: PredictRequest, uploads: list[bytes], request_id: str) -> BaseModel:
        return await service.predict(request, uploads, request_id)

    _add_routes(app, "caption", CaptionRequest, caption, settings.max_items)
    _add_routes(app, "votes", VotesRequest, votes, settings.max_items)
    _add_routes(app, "predict", PredictRequest, predict, settings.max_items)

    @app.get("/v1/models", tags=["OpenAI"])
    async def models() -> dict[str, Any]:
        """List the models that complete chats."""
        return list_models(service, started)

    @app.post("/v1/chat/completions", tags=["OpenAI"])
    async def chat_completions(request: Request) -> Response:
        """Complete a chat of one turn; with `stream`, as server-sent events."""
        body = await read_body(request)
        chat = validated(ChatRequest, body.document)
        if not chat.stream:
            return JSONResponse(await complete(service, chat, _id_of(request)))
        events = await stream_chunks(service, chat, _id_of(request))
        return StreamingResponse(events, media_type="text/event-stream")

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, str]:
        """Answer while this process works."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"])
    async def readyz() -> Response:
        """Answer 200 once all needed models are loaded; before that 503, with the models that are loading."""
        service.check_ready()
        return JSONResponse({"status": "ready", "failed": service.models.failed()})

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    async def metrics_page() -> Response:
        """Return the metrics of this gateway replica for Prometheus; Ray exports those of the models."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4")

    add_page(app, service)
    _add_errors(app)
    describe(app)
    app.add_middleware(CountRequests, metrics=metrics)
    app.add_middleware(Guard, token=token, local=local, max_body_bytes=settings.max_body_bytes)
    return app


def _add_routes(app: FastAPI, name: str, model: type[BaseModel], answer: _Answer, most: int) -> None:
    """Add the route of one question, and that of a batch."""

    async def one(request: Request) -> Response:
        body = await read_body(request)
        result = await answer(validated(model, body.document), body.uploads, _id_of(request))
        return JSONResponse(result.model_dump())

    async def batch(request: Request) -> Response:
        body = await read_body(request)
        if body.uploads:
            raise ApiError(422, "a batch takes images as url or base64", field="requests")
        documents = read_batch(body.document, most)
        request_id = _id_of(request)

        async def item(number: int, document: object) -> dict[str, Any]:
            try:
                return (await answer(validated(model, document), [], f"{request_id}-{number}")).model_dump()
            except ApiError as error:
                return error.at(f"requests.{number}").body(f"{request_id}-{number}")

        results = await asyncio.gather(*(item(number, document) for number, document in enumerate(documents)))
        return JSONResponse({"request_id": request_id, "results": results})

    first = (model.__doc__ or "").split("\n")[0]
    app.post(f"/v1/{name}", name=name, description=first, tags=["CASLIE"])(one)
    app.post(
        f"/v1/{name}/batch", name=f"{name} batch", tags=["CASLIE"],
        description=f"{first} Several requests, each with its own result or problem, in order.",
    )(batch)  # fmt: skip


def _id_of(request: Request) -> str:
    return str(request.state.request_id)


def _add_errors(app: FastAPI) -> None:
    async def of_api(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return problem(error, _id_of(request), request.url.path)

    async def of_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        details = {404: f"there is no {request.url.path[:200]}", 405: f"{request.method} is not allowed here"}
        found = ApiError(error.status_code, details.get(error.status_code, str(error.detail)))
        response = problem(found, _id_of(request), request.url.path)
        response.headers.update(error.headers or {})
        return response

    async def of_validation(request: Request, error: Exception) -> Response:
        return problem(ApiError(422, "a parameter is not valid"), _id_of(request), request.url.path)

    async def unexpected(request: Request, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=_CLOSED)
        log.error("request %s failed", _id_of(request), exc_info=error)
        failed = ApiError(500, "the server's log has the cause, under the request's id")
        return problem(failed, _id_of(request), request.url.path)

    app.add_exception_handler(ApiError, of_api)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(Exception, unexpected)
