"""An engine that fails on purpose: the real one, until a prompt holds one of the words below."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from caslie_ray.engines import Choice, Engine, EngineSpec, EngineStats, Generation, Request, load_engine
from caslie_ray.errors import EngineError

EXIT, SEGFAULT, HANG, RAISE, MEMORY = "EXIT-NOW", "SEGFAULT-NOW", "HANG-NOW", "RAISE-NOW", "MEMORY-NOW"
COUNTED = "CASLIE_TEST_COUNTED"


class FaultyEngine:
    """Exits, hangs, raises or exhausts memory when a prompt contains the word for it."""

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
        if MEMORY in words:
            limit = psutil.Process().memory_info().vms + (256 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            bytearray(1 << 30)
        if RAISE in words:
            raise RuntimeError("the device was lost")


def load(spec: EngineSpec) -> FaultyEngine:
    return FaultyEngine(_real(spec))


def refuse(spec: EngineSpec) -> FaultyEngine:
    raise EngineError(f"no room for {spec.checkpoint}")


class SlowEngine(FaultyEngine):
    """Takes a while for each row, so that there is a middle in which something can happen; costs no core."""

    def __init__(self, engine: Engine, seconds: float) -> None:
        super().__init__(engine)
        self._seconds = seconds

    def _obey(self, requests: Sequence[Request]) -> None:
        super()._obey(requests)
        time.sleep(self._seconds * len(requests))


class CountedEngine(FaultyEngine):
    """Notes the key of each request that it answers in a file of its own, in the folder that `COUNTED` names."""

    def _obey(self, requests: Sequence[Request]) -> None:
        super()._obey(requests)
        with (Path(os.environ[COUNTED]) / f"{os.getpid()}.txt").open("a") as file:
            file.writelines(f"{request.key}\n" for request in requests)


def slow(spec: EngineSpec) -> FaultyEngine:
    return SlowEngine(_real(spec), 0.02)


def slower(spec: EngineSpec) -> FaultyEngine:
    """Slow enough that another node and its replica are ready before the rows are done."""
    return SlowEngine(_real(spec), 0.25)


def very_slow(spec: EngineSpec) -> FaultyEngine:
    return SlowEngine(_real(spec), 2.0)


def counted(spec: EngineSpec) -> FaultyEngine:
    return CountedEngine(_real(spec))


def _real(spec: EngineSpec) -> Engine:
    return load_engine(replace(spec, engine="transformers", device="cpu"))
