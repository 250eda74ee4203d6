"""The vLLM engine."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import torch
from vllm import SamplingParams
from vllm.exceptions import VLLMClientError
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from caslie_ray.engines._base import Choice, EngineStats, Failure, Generation, Request
from caslie_ray.engines._device import is_out_of_memory
from caslie_ray.engines._lora_adapters import joint_shape, read_adapters
from caslie_ray.engines._preprocessor import Preprocessor, load_preprocessor
from caslie_ray.engines._request_encoder import RequestEncoder
from caslie_ray.engines._results import Written, choice, counted, generation
from caslie_ray.engines._source import Source, find_source
from caslie_ray.engines._text_pieces import TextPieces
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.engines.vllm._gguf import write_safetensors
from caslie_ray.engines.vllm._inputs import VllmRow, VllmRows
from caslie_ray.engines.vllm._lora import lora_refusal
from caslie_ray.engines.vllm._process_guard import Guard, cause_of_death, log_size, scratch
from caslie_ray.engines.vllm._settings import answer_settings, engine_settings, limited
from caslie_ray.engines.vllm._step_statistics import StepStatistics
from caslie_ray.engines.vllm._support import OTHER_ENGINE, refusal_of, runs_on_cpu
from caslie_ray.errors import EngineError

__all__ = ["VllmEngine", "load"]

Result = TypeVar("Result", Generation, Choice)
Awaited = TypeVar("Awaited")
_PROBE = "caslie probe"
_CLOSE_S = 10.0


class Loaded(NamedTuple):
    """A checkpoint in memory, and the event loop of vLLM's engine."""

    engine: Any
    preprocessor: Preprocessor
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

    - Thread-safe: vLLM batches the requests of all threads continuously.
    - Prompts are cut and answers read exactly as on transformers. Shared prompt prefixes are computed once.
    - `batch_size` and `batch_tokens` bound one step of the model. On the CPU and on a share of a GPU, the KV cache is
      sized for one full batch; on an entire GPU, vLLM claims most of its memory.
    - The model runs in processes of its own, which end with this one, even by SIGKILL.
    - A GGUF checkpoint is first converted to safetensors in a temporary folder.

    Args:
        spec: the checkpoint and how to run it.

    Raises:
        EngineError: the checkpoint cannot be loaded; the message names it and says why.
    """

    def __init__(self, spec: EngineSpec) -> None:
        started = time.perf_counter()
        self._spec = spec
        self._lock = threading.Lock()
        self._step_statistics = StepStatistics()
        self._numbers = itertools.count()
        self._log_start = log_size()
        self._adapters = read_adapters(spec.adapters)
        self._loras = {
            name: LoRARequest(name, number, adapter.path)
            for number, (name, adapter) in enumerate(self._adapters.items(), start=1)
        }
        self._encoding = ThreadPoolExecutor(max_workers=1)  # tokenizers are not thread-safe
        self._loaded: Loaded | None = self._load()
        _, tokenizer, processor, architecture, chat = self._loaded.preprocessor
        self._decode = tokenizer.decode
        try:
            self._encode = RequestEncoder(chat, architecture, spec.context, spec.adapters, VllmRows(chat, processor))
            self._check_adapters_apply()
        except BaseException:
            self.close()
            raise
        self._stats = EngineStats(load_seconds=time.perf_counter() - started)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate an answer to each request; see `Engine.generate`."""
        started = time.perf_counter()
        outputs = self._answer(requests, self._spec.generate_budget, self._settings)
        answers = [
            generation(request, row, output if isinstance(output, Failure) else self._text(output))
            for request, (row, output) in zip(requests, outputs, strict=True)
        ]
        return self._counted(answers, started)

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return each choice's probability at the first token of the answer; see `Engine.choose`."""
        started = time.perf_counter()
        ids = self._open().preprocessor.first_token_ids(choices)
        settings = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            logprob_token_ids=[token for own in ids for token in own],
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        outputs = self._answer(requests, self._spec.choose_budget, settings)
        answers = [
            choice(request, row, output if isinstance(output, Failure) else _probabilities(output, ids))
            for request, (row, output) in zip(requests, outputs, strict=True)
        ]
        return self._counted(answers, started)

    def stream(self, request: Request) -> Generator[str, None, Generation]:
        """Yield an answer in pieces while it is generated, and return it; closing the generator aborts it in vLLM."""
        started = time.perf_counter()
        loaded = self._open()
        settings = limited(self._settings, request).clone()
        settings.output_kind = RequestOutputKind.CUMULATIVE
        text = TextPieces(self._decode)
        pieces: SimpleQueue[str | None] = SimpleQueue()

        async def write() -> tuple[VllmRow | None, Any]:
            try:
                row = await loaded.loop.run_in_executor(
                    self._encoding, self._encode, request, self._spec.generate_budget
                )
                if isinstance(row, Failure):
                    return None, row
                return row, await self._ask(
                    loaded.engine, row.prompt, request.adapter, settings, lambda ids: pieces.put(text.next(ids))
                )
            finally:
                pieces.put(None)

        writing = asyncio.run_coroutine_threadsafe(write(), loaded.loop)
        try:
            while (piece := pieces.get()) is not None:
                if piece:
                    yield piece
        except BaseException:  # the caller has closed the generator
            writing.cancel()
            raise
        row, output = writing.result()
        if not isinstance(output, Failure) and (rest := text.next(output.token_ids, last=True)):
            yield rest
        answer = output if isinstance(output, Failure) else self._text(output)
        return self._counted([generation(request, row, answer)], started)[0]

    def stats(self) -> EngineStats:
        """Return statistics since the checkpoint was loaded, with vLLM's own as `details`."""
        with self._lock:
            return replace(self._stats, details=self._step_statistics.counts())

    def close(self) -> None:
        """End vLLM's processes; see `Engine.close`."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        try:
            if loaded.engine.output_handler is not None:  # else it reports the end of vLLM's process as a crash
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
            preprocessor = load_preprocessor(spec, source)
            if reason := refusal_of(spec, preprocessor):
                raise EngineError(f"checkpoint {spec.checkpoint} cannot run on vLLM: {reason}")
            for name, adapter in self._adapters.items():
                if reason := lora_refusal(preprocessor.config, adapter.lora):
                    raise EngineError(f"adapter {name} ({adapter.path}): {reason}; {OTHER_ENGINE}")
            self._settings = answer_settings(spec, source, preprocessor)
            with TemporaryDirectory(dir=scratch()) as written, guard.starting():
                folder = source
                if "gguf_file" in source.arguments:
                    write_safetensors(source, preprocessor, spec.dtype, Path(written))
                    folder = Source(written, {})
                engine = asyncio.run_coroutine_threadsafe(self._start(folder, preprocessor), loop).result()
        except BaseException as error:
            _end(guard, loop)
            if isinstance(error, EngineError) or not isinstance(error, Exception):
                raise
            cause = cause_of_death(self._log_start) or f"{type(error).__name__}: {error}"
            raise EngineError(f"checkpoint {spec.checkpoint} cannot be loaded on vLLM: {cause}") from error
        return Loaded(engine, preprocessor, loop, guard)

    async def _start(self, source: Source, preprocessor: Preprocessor) -> Any:
        adapters = self._adapters.values()
        ranks = [adapter.rank for adapter in adapters]
        settings = engine_settings(self._spec, source, preprocessor, ranks, joint_shape(adapters))
        # Otherwise vLLM on the CPU starts its single worker in another process: 30 s and 1 GB for nothing.
        single = runs_on_cpu(self._spec) and settings.tensor_parallel_size == 1
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if single else "1"
        return AsyncLLM.from_engine_args(settings, stat_loggers=[lambda *_: self._step_statistics])

    def _answer(
        self, requests: Sequence[Request], budget: int, settings: SamplingParams
    ) -> list[tuple[VllmRow | None, Any]]:
        """Return each request's row if it has one, and vLLM's output or a `Failure`."""
        loaded = self._open()

        async def one(request: Request) -> tuple[VllmRow | None, Any]:
            row = await loaded.loop.run_in_executor(self._encoding, self._encode, request, budget)
            if isinstance(row, Failure):
                return None, row
            return row, await self._ask(loaded.engine, row.prompt, request.adapter, limited(settings, request))

        async def every() -> list[tuple[VllmRow | None, Any]]:
            tasks = [asyncio.ensure_future(one(request)) for request in requests]
            try:
                return await asyncio.gather(*tasks)
            finally:  # if the engine is dead, cancel the rest
                for task in tasks:
                    task.cancel()

        return self._wait(every())

    async def _ask(
        self,
        engine: Any,
        prompt: dict[str, Any],
        adapter: str | None,
        settings: SamplingParams,
        progress: Callable[[Sequence[int]], None] = lambda ids: None,
    ) -> Any:
        """Return vLLM's output for one prompt, or a `Failure`; `progress` is called with the tokens of each output."""
        lora = self._loras[adapter] if adapter is not None else None
        try:
            async for output in engine.generate(prompt, settings, str(next(self._numbers)), lora_request=lora):
                answer = output.outputs[0]
                progress(answer.token_ids)
        except EngineDeadError as error:
            raise self._died() from error
        except VLLMClientError as error:
            return Failure(f"vLLM rejects the request: {error}", retryable=False)
        except Exception as error:  # image processors raise many types; only this request fails
            if engine.errored:  # vLLM raises the error that ended it in every open request
                raise self._died() from error
            raised = error.__cause__ if isinstance(error.__cause__, Exception) else error
            reason = f"the model failed on this request: {type(raised).__name__}: {raised}"
            return Failure(reason, retryable=is_out_of_memory(raised))
        if answer.finish_reason not in ("stop", "length"):
            return Failure(f"vLLM aborted the answer: {answer.finish_reason}", retryable=True)
        return answer

    def _died(self) -> EngineError:
        cause = cause_of_death(self._log_start) or "its process ended without a message, as when it runs out of memory"
        return EngineError(f"the vLLM engine of {self._spec.checkpoint} died: {cause}")

    def _wait(self, work: Coroutine[Any, Any, Awaited]) -> Awaited:
        return asyncio.run_coroutine_threadsafe(work, self._open().loop).result()

    def _text(self, answer: Any) -> Written:
        text = self._decode(answer.token_ids, skip_special_tokens=True).strip()
        return Written(text, len(answer.token_ids), truncated=answer.finish_reason == "length")

    def _counted(self, answers: list[Result], started: float) -> list[Result]:
        with self._lock:
            self._stats = counted(self._stats, answers, time.perf_counter() - started)
        return answers

    def _check_adapters_apply(self) -> None:
        """Raise if an adapter was loaded but is not applied, as in vllm#55193."""
        loaded = self._open()
        prompt = {"prompt_token_ids": loaded.preprocessor.chat.encode(_PROBE, image=False)}
        settings = SamplingParams(max_tokens=1, temperature=0.0, logprobs=5, detokenize=False)

        def probe(name: str | None) -> dict[int, float]:
            answer = self._wait(self._ask(loaded.engine, prompt, name, settings))
            if isinstance(answer, Failure):
                raise EngineError(f"adapter {name} cannot be used on vLLM: {answer.reason}")
            return {token: entry.logprob for token, entry in answer.logprobs[0].items()}

        for name, adapter in self._adapters.items():
            if adapter.changes_answers() and probe(name) == probe(None):
                raise EngineError(f"adapter {name} ({adapter.path}) changes nothing on vLLM: it was not applied")


def _end(guard: Guard, loop: asyncio.AbstractEventLoop) -> None:
    guard.kill()
    loop.call_soon_threadsafe(loop.stop)


def _probabilities(answer: Any, ids: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Return each choice's probability from the log-probabilities of the first token."""
    logprobs = {token: entry.logprob for token, entry in answer.logprobs[0].items()}
    sums = torch.stack([torch.tensor([logprobs[token] for token in own]).logsumexp(-1) for own in ids])
    return tuple(sums.softmax(-1).tolist())
