"""Answers requests with vLLM's asynchronous engine."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from caslie_ray.engines._adapters import joint_shape, read_adapters
from caslie_ray.engines._answers import Written, choice, counted, generation
from caslie_ray.engines._dequantize import write_safetensors
from caslie_ray.engines._device import is_out_of_memory
from caslie_ray.engines._reader import Reader, Source, find_source, load_reader
from caslie_ray.engines._rows import Encoder
from caslie_ray.engines.base import Choice, EngineStats, Failure, Generation, Request
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.engines.vllm._lora import lora_refusal
from caslie_ray.engines.vllm._metrics import Meter
from caslie_ray.engines.vllm._process import Guard, cause_of_death, log_size, scratch
from caslie_ray.engines.vllm._rows import VllmRow, VllmRows
from caslie_ray.engines.vllm._support import OTHER_ENGINE, answer_settings, engine_settings, refusal_of, runs_on_cpu
from caslie_ray.errors import EngineError

__all__ = ["VllmEngine", "load"]

Told = TypeVar("Told", Generation, Choice)
Waited = TypeVar("Waited")
_PROBE = "caslie probe"
_CLOSE_S = 10.0


class Loaded(NamedTuple):
    """A checkpoint in memory, and the loop in which vLLM works."""

    engine: Any
    reader: Reader
    loop: asyncio.AbstractEventLoop
    guard: Guard


def load(spec: EngineSpec) -> VllmEngine:
    """Load a checkpoint on vLLM.

    Raises:
        EngineError: vLLM cannot load the checkpoint; the message names it and says why.
    """
    return VllmEngine(spec)


class VllmEngine:
    """Answers requests with a checkpoint on vLLM.

    vLLM batches what it is given, whoever asked: several threads may ask at once, and a slow answer in one call
    leaves no room empty for those of another. Prompts are cut, and answers read, exactly as on transformers;
    prefixes that prompts share are computed once. `batch_size` and `batch_tokens` bound what goes through the
    model in one step. On the CPU, and on a share of a GPU, memory for as many tokens is set aside; on a whole GPU,
    most of what it has. The model runs in processes of its own, which end with this one, however it ends.
    A GGUF checkpoint is written out as safetensors first, which takes room in the temporary folder.

    Args:
        spec: the checkpoint and how to run it.

    Raises:
        EngineError: the checkpoint cannot be loaded; the message names it and says why.
    """

    def __init__(self, spec: EngineSpec) -> None:
        started = time.perf_counter()
        self._spec = spec
        self._lock = threading.Lock()
        self._meter = Meter()
        self._numbers = itertools.count()
        self._born = log_size()
        self._adapters = read_adapters(spec.adapters)
        self._loras = {
            name: LoRARequest(name, number, adapter.path)
            for number, (name, adapter) in enumerate(self._adapters.items(), start=1)
        }
        self._encoding = ThreadPoolExecutor(max_workers=1)  # tokenizers bear one thread
        self._loaded: Loaded | None = self._load()
        _, tokenizer, processor, family, chat = self._loaded.reader
        self._decode = tokenizer.decode
        try:
            self._encode = Encoder(chat, family, spec.context, spec.adapters, VllmRows(chat, processor))
            self._refuse_idle_adapters()
        except BaseException:
            self.close()
            raise
        self._stats = EngineStats(load_seconds=time.perf_counter() - started)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Write an answer to each request; see `Engine.generate`."""
        started = time.perf_counter()
        told = self._answer(requests, self._spec.generate_budget, self._settings)
        answers = [
            generation(request, row, found if isinstance(found, Failure) else self._text(found))
            for request, (row, found) in zip(requests, told, strict=True)
        ]
        return self._counted(answers, started)

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Give each choice's probability at the first token of the answer; see `Engine.choose`."""
        started = time.perf_counter()
        ids = self._open().reader.first_token_ids(choices)
        settings = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            logprob_token_ids=[token for own in ids for token in own],
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        told = self._answer(requests, self._spec.choose_budget, settings)
        answers = [
            choice(request, row, found if isinstance(found, Failure) else _shares(found, ids))
            for request, (row, found) in zip(requests, told, strict=True)
        ]
        return self._counted(answers, started)

    def stats(self) -> EngineStats:
        """What was done since the checkpoint was loaded, with vLLM's own counts as `details`."""
        with self._lock:
            return replace(self._stats, details=self._meter.counts())

    def close(self) -> None:
        """End vLLM's processes; see `Engine.close`."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        try:
            if loaded.engine.output_handler is not None:  # else it reports the end of vLLM's process as its death
                loaded.loop.call_soon_threadsafe(loaded.engine.output_handler.cancel)
            loaded.engine.shutdown(timeout=_CLOSE_S)
        finally:
            _end(loaded.guard, loaded.loop)
            self._encoding.shutdown(cancel_futures=True)

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise EngineError(f"the engine of checkpoint {self._spec.checkpoint} is closed")
        return self._loaded

    def _load(self) -> Loaded:
        spec = self._spec
        guard = Guard()
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="vllm", daemon=True).start()
        try:
            source = find_source(spec)
            reader = load_reader(spec, source)
            if reason := refusal_of(spec, reader):
                raise EngineError(f"checkpoint {spec.checkpoint} cannot run on vLLM: {reason}")
            for name, adapter in self._adapters.items():
                if reason := lora_refusal(reader.config, adapter.lora):
                    raise EngineError(f"adapter {name} ({adapter.path}): {reason}; {OTHER_ENGINE}")
            self._settings = answer_settings(spec, source, reader)
            with TemporaryDirectory(dir=scratch()) as written, guard.starting():
                folder = source
                if "gguf_file" in source.where:
                    write_safetensors(source, reader, spec.dtype, Path(written))
                    folder = Source(written, {})
                engine = asyncio.run_coroutine_threadsafe(self._start(folder, reader), loop).result()
        except BaseException as error:
            _end(guard, loop)
            if isinstance(error, EngineError) or not isinstance(error, Exception):
                raise
            cause = cause_of_death(self._born) or f"{type(error).__name__}: {error}"
            raise EngineError(f"checkpoint {spec.checkpoint} cannot be loaded on vLLM: {cause}") from error
        return Loaded(engine, reader, loop, guard)

    async def _start(self, source: Source, reader: Reader) -> Any:
        adapters = self._adapters.values()
        ranks = [adapter.rank for adapter in adapters]
        settings = engine_settings(self._spec, source, reader, ranks, joint_shape(adapters))
        # On the CPU vLLM puts a single worker into a third process otherwise: half a minute and a GB for nothing.
        single = runs_on_cpu(self._spec) and settings.tensor_parallel_size == 1
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if single else "1"
        return AsyncLLM.from_engine_args(settings, stat_loggers=[lambda *_: self._meter])

    def _answer(
        self, requests: Sequence[Request], budget: int, settings: SamplingParams
    ) -> list[tuple[VllmRow | None, Any]]:
        """Every request's row where there is one, and vLLM's answer or a `Failure`."""
        loaded = self._open()

        async def one(request: Request) -> tuple[VllmRow | None, Any]:
            row = await loaded.loop.run_in_executor(self._encoding, self._encode, request, budget)
            if isinstance(row, Failure):
                return None, row
            return row, await self._ask(loaded.engine, row.prompt, request.adapter, settings)

        async def every() -> list[tuple[VllmRow | None, Any]]:
            asked = [asyncio.ensure_future(one(request)) for request in requests]
            try:
                return await asyncio.gather(*asked)
            finally:  # a dead engine answers none of the rest
                for task in asked:
                    task.cancel()

        return self._wait(every())

    async def _ask(self, engine: Any, prompt: dict[str, Any], adapter: str | None, settings: SamplingParams) -> Any:
        """What vLLM answers to one prompt, or a `Failure`."""
        lora = self._loras[adapter] if adapter is not None else None
        try:
            async for output in engine.generate(prompt, settings, str(next(self._numbers)), lora_request=lora):
                answer = output.outputs[0]
        except EngineDeadError as error:
            raise self._died() from error
        except VLLMClientError as error:
            return Failure(f"vLLM refuses the request: {error}", retryable=False)
        except Exception as error:  # Image processors raise many types; the row alone pays.
            if engine.errored:  # vLLM hands what ended it to every request that it held
                raise self._died() from error
            raised = error.__cause__ if isinstance(error.__cause__, Exception) else error
            reason = f"the model failed on this request: {type(raised).__name__}: {raised}"
            return Failure(reason, retryable=is_out_of_memory(raised))
        if answer.finish_reason not in ("stop", "length"):
            return Failure(f"vLLM broke off the answer: {answer.finish_reason}", retryable=True)
        return answer

    def _died(self) -> EngineError:
        cause = cause_of_death(self._born) or "its process ended without a word, as when memory runs out"
        return EngineError(f"the vLLM engine of {self._spec.checkpoint} died: {cause}")

    def _wait(self, work: Coroutine[Any, Any, Waited]) -> Waited:
        return asyncio.run_coroutine_threadsafe(work, self._open().loop).result()

    def _text(self, answer: Any) -> Written:
        text = self._decode(answer.token_ids, skip_special_tokens=True).strip()
        return Written(text, len(answer.token_ids), truncated=answer.finish_reason == "length")

    def _counted(self, answers: list[Told], started: float) -> list[Told]:
        with self._lock:
            self._stats = counted(self._stats, answers, time.perf_counter() - started)
        return answers

    def _refuse_idle_adapters(self) -> None:
        """vLLM has been seen to load an adapter and then to answer as the checkpoint alone (vllm#55193)."""
        loaded = self._open()
        prompt = {"prompt_token_ids": loaded.reader.chat.encode(_PROBE, image=False)}
        settings = SamplingParams(max_tokens=1, temperature=0.0, logprobs=5, detokenize=False)

        def probe(name: str | None) -> dict[int, float]:
            answer = self._wait(self._ask(loaded.engine, prompt, name, settings))
            if isinstance(answer, Failure):
                raise EngineError(f"adapter {name} cannot be used on vLLM: {answer.reason}")
            return {token: told.logprob for token, told in answer.logprobs[0].items()}

        for name, adapter in self._adapters.items():
            if adapter.changes_answers() and probe(name) == probe(None):
                raise EngineError(f"adapter {name} ({adapter.path}) changes nothing on vLLM: it was not applied")


def _end(guard: Guard, loop: asyncio.AbstractEventLoop) -> None:
    guard.kill()
    loop.call_soon_threadsafe(loop.stop)


def _shares(answer: Any, ids: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Each choice's probability, from the log-probabilities of the first token."""
    told = {token: entry.logprob for token, entry in answer.logprobs[0].items()}
    sums = torch.stack([torch.tensor([told[token] for token in own]).logsumexp(-1) for own in ids])
    return tuple(sums.softmax(-1).tolist())
