"""The OpenAI-compatible routes: chat completions of the captioner and of uniM³, and the list of models.

The same engines answer as for the other routes, whichever library runs them, so that no model is loaded twice. What an
engine does not do per request (sampling, stop words, several answers) is refused by name. An answer is never longer
than the profile's `max_new_tokens`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from caslie_ray.dataset.online import ImageError
from caslie_ray.engines import Generation, Request
from caslie_ray.errors import ModelUnavailable
from caslie_ray.prompts import Prompt
from caslie_ray.roles import Role
from caslie_ray.serving._models import Calls, ModelBusy, check_answered, problem_of
from caslie_ray.serving._problems import ApiError
from caslie_ray.serving._service import Service

__all__ = ["ChatRequest", "complete", "list_models", "stream_chunks"]

_DONE = "data: [DONE]\n\n"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")
    type: Literal["text", "image_url"]
    text: Annotated[str, Field(max_length=2_000_000)] | None = None
    image_url: dict[str, Any] | str | None = None


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user"]
    content: Annotated[str, Field(max_length=2_000_000)] | list[_Part]


class ChatRequest(BaseModel):
    """A chat completion request: one user message, and system messages before it."""

    model_config = ConfigDict(extra="allow")
    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[_Message], Field(min_length=1, max_length=8)]
    stream: bool = False
    n: Literal[1] = 1
    temperature: float | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stream_options: dict[str, Any] | None = None


class _Target(NamedTuple):
    role: Role
    adapter: str | None
    fingerprint: str


_IGNORED = {"user", "metadata", "store", "seed", "service_tier", "safety_identifier", "prompt_cache_key"}


def list_models(service: Service, started: int) -> dict[str, Any]:
    """Return the models that complete chats: the captioner, and uniM³ with each adapter."""
    plan = service.plan
    names = [*([plan.lineup.captioner.name] if plan.lineup.captioner else []), *plan.answerers]
    data = [{"id": name, "object": "model", "created": started, "owned_by": plan.profile.name} for name in names]
    return {"object": "list", "data": data}


async def complete(service: Service, chat: ChatRequest, request_id: str) -> dict[str, Any]:
    """Return a chat completion.

    Raises:
        ApiError: the request is not valid, or the model does not answer in time.
    """
    target, request = await _prepared(service, chat)
    calls = _calls(service)
    seconds = service.seconds(None)
    try:
        answer: Generation = await calls.generate(target.role, request)
    except (TimeoutError, ModelBusy, ModelUnavailable) as error:
        raise problem_of(error, seconds) from None
    check_answered(answer)
    return {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "system_fingerprint": calls.fingerprints.get(target.adapter or target.role.name, target.fingerprint),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": _finish_reason(answer),
            }
        ],
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.new_tokens,
            "total_tokens": answer.prompt_tokens + answer.new_tokens,
        },
    }


async def stream_chunks(service: Service, chat: ChatRequest, request_id: str) -> AsyncIterator[str]:
    """Return the server-sent events of a completion; the first piece is there when this returns.

    Raises:
        ApiError: the request is not valid, or the model does not answer in time.
    """
    target, request = await _prepared(service, chat)
    calls = _calls(service)
    pieces = calls.stream(target.role, request)
    try:
        first = await anext(pieces)
    except (TimeoutError, ModelBusy, ModelUnavailable) as error:
        raise problem_of(error, service.seconds(None)) from None
    head = {
        "id": f"chatcmpl-{request_id}", "object": "chat.completion.chunk", "created": int(time.time()),
        "model": chat.model, "system_fingerprint": target.fingerprint,
    }  # fmt: skip

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

    async def events() -> AsyncIterator[str]:
        try:
            yield chunk({"role": "assistant", "content": ""})
            piece = first
            while isinstance(piece, str):
                yield chunk({"content": piece})
                piece = await anext(pieces)
            yield chunk({}, _finish_reason(piece))
            yield _DONE
        except (TimeoutError, ModelBusy, ModelUnavailable) as error:
            failed = problem_of(error, service.seconds(None))
            yield f"data: {json.dumps({'error': {'message': failed.detail, 'code': failed.status}})}\n\n"
        finally:
            await pieces.aclose()

    return events()


def _finish_reason(answer: Generation) -> str:
    return "length" if answer.truncated else "stop"


def _calls(service: Service) -> Calls:
    service.check_ready()
    return Calls(service.models, asyncio.get_running_loop().time() + service.seconds(None))


async def _prepared(service: Service, chat: ChatRequest) -> tuple[_Target, Request]:
    target = _target(service, chat)
    unknown = sorted(set(chat.model_extra or {}) - _IGNORED)
    given = {name: value for name, value in (chat.model_extra or {}).items() if name in unknown and value is not None}
    if given:
        name = next(iter(given))
        raise ApiError(422, f"{name} is not supported: the profile decides how models generate", field=name)
    if chat.temperature not in (None, 0, 0.0) and not target.role.spec.generation.get("do_sample"):
        raise ApiError(422, "this model is greedy: leave temperature out, or give 0", field="temperature")
    text, image = await _read_messages(service, chat, takes_image=target.role is service.plan.lineup.captioner)
    limit = chat.max_completion_tokens or chat.max_tokens
    return target, Request("", Prompt(text, ((0, len(text)),)), image, target.adapter, limit)


def _target(service: Service, chat: ChatRequest) -> _Target:
    plan = service.plan
    if plan.lineup.captioner is not None and chat.model == plan.lineup.captioner.name:
        return _Target(plan.lineup.captioner, None, plan.lineup.captioner.fingerprint)
    answerer = service.answerer(chat.model)
    return _Target(plan.base, answerer.adapter, answerer.fingerprint)


async def _read_messages(service: Service, chat: ChatRequest, *, takes_image: bool) -> tuple[str, bytes | None]:
    if [message.role for message in chat.messages].count("user") != 1 or chat.messages[-1].role != "user":
        raise ApiError(422, "these models answer one turn: give one user message, the last one", field="messages")
    texts: list[str] = []
    images: list[str] = []
    for number, message in enumerate(chat.messages):
        if isinstance(message.content, str):
            texts.append(message.content)
            continue
        for part in message.content:
            if part.type == "text":
                texts.append(part.text or "")
            else:
                place = part.image_url
                url = place if isinstance(place, str) else (place or {}).get("url")
                if not isinstance(url, str):
                    raise ApiError(422, "give the image as image_url: {url: …}", field=f"messages.{number}.content")
                images.append(url)
    text = "\n".join(filter(str.strip, texts))
    if not text:
        raise ApiError(422, "the messages have no text", field="messages")
    if len(images) > 1 or (images and not takes_image):
        what = "takes one image per request" if takes_image else "reads no images: ask the captioner"
        raise ApiError(422, f"{chat.model} {what}", field="messages")
    if takes_image and not images:
        raise ApiError(422, f"{chat.model} describes an image: add a part image_url", field="messages")
    if not images:
        return text, None
    try:
        read = service.reader.from_base64 if images[0].startswith("data:") else service.reader.from_url
        return text, (await read(images[0])).data
    except ImageError as error:
        raise ApiError(422, error.reason, field="messages") from None
