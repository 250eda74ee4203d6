"""The deployment of one model: an engine in a process of its own, whose calls are batches of concurrent requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from ray import serve

from caslie_ray.engines import Choice, EngineSpec, Failure, Generation, Request
from caslie_ray.engines.load_errors import LoadError
from caslie_ray.engines.process import Cancel, EngineProcess, ProcessLimits
from caslie_ray.pipeline.adapter_download import release_adapters, with_local_adapters

__all__ = ["Answered", "ModelReplica"]


log = logging.getLogger(__name__)

# An optional model that could not be loaded is tried again after this time.
_AGAIN_S = 300.0


class Answered(NamedTuple):
    """An answer, and the fingerprints of the replica that gave it, by the names of roles and adapters."""

    result: Any
    fingerprints: Mapping[str, str]


class _Asked(NamedTuple):
    request: Request
    choices: tuple[str, ...]


class ModelReplica:
    """A replica of a model.

    Requests that wait at the same time share an engine call. One that is cancelled while it waits takes no place in it.
    A request that ends the engine's process costs that process and then itself, not this replica.

    Args:
        name: of the model, for messages.
        spec: the checkpoint and how to run it.
        fingerprints: of what answers, by the names of roles and adapters.
        limits: of the engine's process.
        batches: engine calls at once.
        wait_s: seconds to wait for further requests before a batch is computed that is not full.
        needed: whether nothing is served without this model. Another one that cannot be loaded answers with failures,
            and is loaded again after some minutes.

    Raises:
        LoadError: the model is needed and cannot be loaded.
    """

    def __init__(
        self,
        name: str,
        spec: EngineSpec,
        fingerprints: Mapping[str, str],
        limits: ProcessLimits,
        batches: int,
        wait_s: float,
        needed: bool,
    ) -> None:
        self._fingerprints = dict(fingerprints)
        self._failed: str | None = None
        self._started = time.monotonic()
        try:
            self._engine = EngineProcess(with_local_adapters(spec), limits, name=name)
        except LoadError as error:
            if needed:
                raise
            log.warning("served without %s: %s", name, error)
            self._failed = f"{name} cannot be loaded: {error}"

        @serve.batch(max_batch_size=spec.batch_size, batch_wait_timeout_s=wait_s, max_concurrent_batches=batches)
        async def compute(asked: list[_Asked]) -> list[Any]:
            return await self._compute(asked)

        self._batched = compute

    async def ready(self) -> Mapping[str, str]:
        """Return the fingerprints: a replica answers once its model is loaded."""
        return self._fingerprints

    async def generate(self, request: Request) -> Answered:
        """Return the `Generation` of one request."""
        return Answered(await self._batched(_Asked(request, ())), self._fingerprints)

    async def choose(self, request: Request, choices: Sequence[str]) -> Answered:
        """Return the `Choice` of one request."""
        return Answered(await self._batched(_Asked(request, tuple(choices))), self._fingerprints)

    async def stream(self, request: Request) -> AsyncIterator[str | Generation]:
        """Yield an answer in pieces while it is generated, and then the `Generation`; closing the iterator ends that.

        Raises:
            RequestFailed: the request has no answer.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | Generation | BaseException] = asyncio.Queue()
        cancel = Cancel()

        def put(piece: str | Generation | BaseException) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def generate() -> None:
            stream = self._engine.stream(request, cancel=cancel)
            try:
                while True:
                    put(next(stream))
            except StopIteration as end:
                put(end.value)
            except BaseException as error:
                put(error)

        generating = loop.run_in_executor(None, generate)
        try:
            while isinstance(piece := await pieces.get(), str):
                yield piece
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        finally:
            cancel.set()
            await asyncio.shield(asyncio.wait([generating]))

    def check_health(self) -> None:
        """Fail if the engine can no longer be started, so that Serve replaces this replica.

        Raises:
            RuntimeError: it is down.
        """
        if self._failed is not None:
            if time.monotonic() - self._started > _AGAIN_S:
                raise RuntimeError(self._failed)
        elif self._engine.down is not None:
            raise RuntimeError(self._engine.down)

    def __del__(self) -> None:
        if hasattr(self, "_engine"):
            self._engine.close()
            release_adapters()

    async def _compute(self, asked: Sequence[_Asked]) -> list[Any]:
        """Answer a batch: one engine call for texts, and one per set of choices."""
        groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for at, one in enumerate(asked):
            groups[one.choices].append(at)

        def ask(choices: tuple[str, ...], places: Sequence[int]) -> Sequence[Generation | Choice]:
            requests = [asked[at].request for at in places]
            if self._failed is not None:
                failure = Failure(self._failed, retryable=True)
                return [Choice(request.key, (), 0, False, failure) for request in requests]
            return self._engine.choose(requests, choices) if choices else self._engine.generate(requests)

        results: list[Any] = [None] * len(asked)
        answered = await asyncio.gather(*(asyncio.to_thread(ask, choices, at) for choices, at in groups.items()))
        for places, answers in zip(groups.values(), answered, strict=True):
            for at, answer in zip(places, answers, strict=True):
                results[at] = answer
        return results
