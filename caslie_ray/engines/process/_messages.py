"""Messages between an engine process and its owner."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from caslie_ray.engines import Choice, EngineStats, Generation, Request
from caslie_ray.engines.load_errors import LoadFailure
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.prompts import Prompt

__all__ = [
    "Answered", "Began", "CallMessage", "CancelMessage", "CloseMessage", "LoadFailed", "LoadMessage", "Loaded",
    "Method", "PackedRequests", "Piece", "Raised", "StatsAnswer", "StatsMessage", "pack", "unpack",
]  # fmt: skip

Method = Literal["generate", "choose", "stream"]


class PackedRequests(NamedTuple):
    """Requests as columns: they pickle ten times faster than as records, and an image that repeats is sent once."""

    keys: list[str]
    prompts: list[tuple[Any, ...]]
    images: list[Any]
    image_index: list[int | None]
    adapters: list[str | None]
    limits: list[int | None]
    prefixes: list[str]


class LoadMessage(NamedTuple):
    """Owner: load this model, and compute so many calls at once."""

    spec: EngineSpec
    overlap: int


class CallMessage(NamedTuple):
    """Owner: answer these requests."""

    number: int
    method: Method
    requests: PackedRequests
    choices: tuple[str, ...]


class CancelMessage(NamedTuple):
    """Owner: drop this call."""

    number: int


class StatsMessage(NamedTuple):
    """Owner: report the engine's statistics."""


class CloseMessage(NamedTuple):
    """Owner: close the engine and exit."""


class Loaded(NamedTuple):
    """Process: the model is loaded."""

    seconds: float


class LoadFailed(NamedTuple):
    """Process: the model cannot be loaded."""

    failure: LoadFailure


class Began(NamedTuple):
    """Process: the engine has started to compute this call."""

    number: int


class Piece(NamedTuple):
    """Process: the next piece of a streamed answer."""

    number: int
    text: str


class Answered(NamedTuple):
    """Process: the call's answers; empty for a call that was cancelled."""

    number: int
    answers: list[Generation] | list[Choice]


class Raised(NamedTuple):
    """Process: the engine raised an exception in this call; `memory` where it was out of memory."""

    number: int
    error: str
    memory: bool


class StatsAnswer(NamedTuple):
    """Process: the engine's statistics."""

    stats: EngineStats


def pack(requests: Sequence[Request]) -> PackedRequests:
    """Return requests in the form in which they are sent."""
    places: dict[bytes, int] = {}
    for request in requests:
        if request.image is not None:
            places.setdefault(request.image, len(places))
    return PackedRequests(
        [request.key for request in requests],
        [(request.prompt.text, request.prompt.fields, request.prompt.captions) for request in requests],
        [pickle.PickleBuffer(image) for image in places],
        [None if request.image is None else places[request.image] for request in requests],
        [request.adapter for request in requests],
        [request.max_new_tokens for request in requests],
        [request.answer_prefix for request in requests],
    )


def unpack(packed: PackedRequests) -> list[Request]:
    """Return the requests that were packed."""
    return [
        Request(key, Prompt(*prompt), None if place is None else packed.images[place], adapter, limit, prefix)
        for key, prompt, place, adapter, limit, prefix in zip(
            packed.keys,
            packed.prompts,
            packed.image_index,
            packed.adapters,
            packed.limits,
            packed.prefixes,
            strict=True,
        )
    ]
