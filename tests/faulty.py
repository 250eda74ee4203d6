"""An engine that fails on purpose: the real one, until a prompt holds one of the words below."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from dataclasses import replace

from caslie_ray.engines import Choice, Engine, EngineSpec, EngineStats, Generation, Request, load_engine

EXIT, SEGFAULT, HANG, RAISE = "EXIT-NOW", "SEGFAULT-NOW", "HANG-NOW", "RAISE-NOW"


class FaultyEngine:
    """Ends its process, hangs or raises when it is told to by a prompt."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        self._obey(requests)
        return self._engine.generate(requests)

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        self._obey(requests)
        return self._engine.choose(requests, choices)

    def stats(self) -> EngineStats:
        return self._engine.stats()

    def close(self) -> None:
        self._engine.close()

    def _obey(self, requests: Sequence[Request]) -> None:
        words = " ".join(request.prompt.text for request in requests)
        if EXIT in words:
            os._exit(1)
        if SEGFAULT in words:
            ctypes.string_at(0)
        if HANG in words:
            time.sleep(3600)
        if RAISE in words:
            raise RuntimeError("the device was lost")


def load(spec: EngineSpec) -> FaultyEngine:
    return FaultyEngine(load_engine(replace(spec, engine="transformers")))


def refuse(spec: EngineSpec) -> FaultyEngine:
    raise RuntimeError(f"no room for {spec.checkpoint}")
