"""The engine process: loads a model and answers calls that come over its standard input, a socket.

Started by `EngineProcess`. The main thread loads the model and computes; an engine that computes several calls at once
has more threads. A reader thread takes calls while others are computed, and lets the engine prepare them (see
`Prepares`). The process ends when its owner does, since the socket closes; see also `_keeper`.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import socket
import sys
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

from caslie_ray.engines import Choice, ChoiceError, Engine, EngineStats, Failure, Generation, Request, load_engine
from caslie_ray.engines.load_errors import classify
from caslie_ray.engines.process._frames import encode, receive, send
from caslie_ray.engines.process._messages import (
    Answered,
    Began,
    CallMessage,
    CancelMessage,
    CloseMessage,
    Loaded,
    LoadFailed,
    LoadMessage,
    Method,
    Piece,
    Raised,
    StatsAnswer,
    StatsMessage,
    unpack,
)

__all__ = ["Prepares", "Streams", "serve"]

log = logging.getLogger(__name__)

_EXIT_ORPHANED = 3


@runtime_checkable
class Prepares(Protocol):
    """An engine that can decode images and tokenize prompts of a call before it is asked to answer it."""

    def prepare(self, requests: Sequence[Request], *, choosing: bool) -> None:
        """Begin to prepare a call, without waiting; `generate` or `choose` is given the same list later."""
        ...

    def discard(self, requests: Sequence[Request]) -> None:
        """Forget what was prepared for a call that will not come."""
        ...


@runtime_checkable
class Streams(Protocol):
    """An engine that yields an answer while it writes it."""

    def stream(self, request: Request) -> Generator[str, None, Generation]:
        """Yield an answer in pieces, and return it; it is no longer written once the generator is closed."""
        ...


@dataclass(eq=False)
class _Call:
    number: int
    method: Method
    requests: list[Request]
    choices: tuple[str, ...]
    cancelled: threading.Event = field(default_factory=threading.Event)


class _Server:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._engine: Engine

    def serve(self) -> None:
        message = receive(self._socket)
        assert isinstance(message, LoadMessage)
        try:
            self._engine = load_engine(message.spec)
        except Exception as error:  # each loader raises types of its own
            log.exception("loading %s failed", message.spec.checkpoint)
            self._send(LoadFailed(classify(error)))
            return
        self._send(Loaded(self._engine.stats().load_seconds))
        for number in range(1, message.overlap):
            threading.Thread(target=self._compute, name=f"engine-{number}", daemon=True).start()
        threading.Thread(target=self._read, name="engine-reader", daemon=True).start()
        self._compute()
        self._engine.close()

    def _read(self) -> None:
        try:
            while True:
                message = receive(self._socket)
                if isinstance(message, CallMessage):
                    call = _Call(message.number, message.method, unpack(message.requests), message.choices)
                    self._calls[call.number] = call
                    if isinstance(self._engine, Prepares) and call.method != "stream":
                        self._engine.prepare(call.requests, choosing=call.method == "choose")
                    self._queue.put(call)
                elif isinstance(message, CancelMessage):
                    if (cancelled := self._calls.get(message.number)) is not None:
                        cancelled.cancelled.set()
                elif isinstance(message, StatsMessage):
                    self._send(StatsAnswer(self._stats()))
                elif isinstance(message, CloseMessage):
                    self._queue.put(None)
        except (EOFError, ConnectionError):  # the owner has ended
            os._exit(_EXIT_ORPHANED)
        except BaseException:
            log.exception("the connection to the owner failed")
            os._exit(1)

    def _stats(self) -> EngineStats:
        try:
            return self._engine.stats()
        except Exception:
            log.exception("the engine gives no statistics")
            return EngineStats()

    def _compute(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                self._answer(call)
            finally:
                self._calls.pop(call.number, None)
            del call
        self._queue.put(None)  # for the other threads

    def _answer(self, call: _Call) -> None:
        if call.cancelled.is_set():
            if isinstance(self._engine, Prepares):
                self._engine.discard(call.requests)
            self._send(Answered(call.number, []))
            return
        self._send(Began(call.number))
        answer: Any
        try:
            if call.method == "choose":
                answer = self._choose(call)
            elif call.method == "generate":
                answer = self._engine.generate(call.requests)
            else:
                answer = self._stream(call)
            parts = encode(Answered(call.number, answer))
        except Exception as error:
            log.exception("the engine failed on %s of %d requests", call.method, len(call.requests))
            memory = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
            parts = encode(Raised(call.number, f"{type(error).__name__}: {error}", memory))
        with self._sending:
            send(self._socket, parts)

    def _choose(self, call: _Call) -> list[Choice]:
        """Choices without first tokens of their own are the caller's fault, and no reason to load the model again."""
        try:
            return self._engine.choose(call.requests, call.choices)
        except ChoiceError as error:
            failure = Failure(str(error), retryable=False)
            return [Choice(request.key, (), 0, False, failure) for request in call.requests]

    def _stream(self, call: _Call) -> list[Generation]:
        """Send the pieces of an answer; return the answer, or nothing if it was cancelled."""
        (request,) = call.requests
        if not isinstance(self._engine, Streams):
            (answer,) = self._engine.generate(call.requests)
            self._send(Piece(call.number, answer.text))
            return [answer]
        pieces = self._engine.stream(request)
        try:
            while not call.cancelled.is_set():
                self._send(Piece(call.number, next(pieces)))
        except StopIteration as end:
            return [end.value]
        finally:
            pieces.close()
        return []

    def _send(self, message: Any) -> None:
        parts = encode(message)
        with self._sending:
            send(self._socket, parts)


def serve() -> None:
    """Serve the owner at the other end of standard input until it closes the connection."""
    sock = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # what the engine starts inherits no end of the connection
    os.close(null)
    # transformers imports it for assisted decoding, which is not used here: it costs more than a second and 100 MB.
    cast(dict[str, Any], sys.modules).setdefault("sklearn", None)
    faulthandler.enable(all_threads=False)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    _Server(sock).serve()


if __name__ == "__main__":
    # An owner that is gone is no error.
    try:
        serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(_EXIT_ORPHANED)
