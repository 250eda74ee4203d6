"""The transformers engine."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import GenerationConfig, StoppingCriteriaList

from caslie_ray.engines._base import Choice, EngineStats, Failure, Generation, Request
from caslie_ray.engines._config_facts import end_ids, rope_switch
from caslie_ray.engines._device import find_devices, free_memory, is_fatal, is_out_of_memory, limit_memory
from caslie_ray.engines._request_encoder import RequestEncoder
from caslie_ray.engines._results import Written, choice, counted, generation
from caslie_ray.engines._tensor_inputs import TensorRow, TensorRows, collate
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.engines.transformers._batching import TokenLimit, plan, run_batches
from caslie_ray.engines.transformers._loading import LoadedCheckpoint, load_checkpoint
from caslie_ray.engines.transformers._streaming import PieceStreamer, StopWhen
from caslie_ray.errors import EngineError

__all__ = ["TransformersEngine", "load"]

Answer = TypeVar("Answer")
Result = TypeVar("Result", Generation, Choice)
WINDOW = 4
"""Batches whose images are prepared together: enough to sort by length, few enough for memory."""


def load(spec: EngineSpec) -> TransformersEngine:
    """Load a checkpoint on transformers.

    Raises:
        EngineError: the checkpoint cannot be loaded; the message names it.
    """
    return TransformersEngine(spec)


class TransformersEngine:
    """Answers requests with a checkpoint that transformers loads.

    - Requests of similar length share a batch, padded on the left; requests for different adapters, or with different
      limits of tokens, do not.
    - Images of the next batches are prepared while the model computes. Pillow resizes them on every machine, with or
      without torchvision, so that captions do not depend on it.
    - Weights are read from safetensors or GGUF, never from a pickle, and no code of a checkpoint is run.
    - On a share of a GPU it allocates no more than that share. Over several GPUs the layers are spread, which makes
      room but is no faster.

    Not thread-safe.

    Args:
        spec: the checkpoint and how to run it.

    Raises:
        EngineError: the checkpoint cannot be loaded; the message names it.
    """

    def __init__(self, spec: EngineSpec) -> None:
        started = time.perf_counter()
        self._spec = spec
        devices = find_devices(spec.device, spec.gpus)
        self._device = devices[0]
        limit_memory(self._device, spec.gpus)
        self._loaded: LoadedCheckpoint | None = load_checkpoint(spec, devices)
        model, _, (config, tokenizer, processor, architecture, chat) = self._loaded
        self._encode = RequestEncoder(chat, architecture, spec.context, spec.adapters, TensorRows(chat, processor))
        self._decode = tokenizer.decode
        self._encoding = ThreadPoolExecutor(max_workers=1)  # tokenizers are not thread-safe
        self._prepared: dict[int, Future[list[TensorRow | Failure]]] = {}
        self._accepts = set(inspect.signature(model.forward).parameters)
        self._dtype = getattr(torch, spec.dtype)
        # A batch too large for generating may fit for choosing, which keeps no KV cache.
        self._generate_limit = TokenLimit(spec.batch_tokens, spec.batch_size)
        self._choose_limit = TokenLimit(spec.batch_tokens, spec.batch_size)
        self._alone_above = rope_switch(config.get_text_config(decoder=True))
        self._ends = end_ids(model.generation_config, config, tokenizer)
        pad = tokenizer.pad_token_id
        self._generation = GenerationConfig(
            max_new_tokens=spec.max_new_tokens,
            num_beams=1,
            eos_token_id=sorted(self._ends) or None,
            pad_token_id=pad if pad is not None else min(self._ends, default=0),
            **{"do_sample": False, **spec.generation},
        )
        # `generate` would fill in unset settings, such as sampling, from the model's own.
        for part in (model, getattr(model, "language_model", model)):
            if hasattr(part, "generation_config"):
                part.generation_config = GenerationConfig()
        self._stats = EngineStats(load_seconds=time.perf_counter() - started)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate an answer to each request; see `Engine.generate`."""
        started = time.perf_counter()
        answers: list[Generation | None] = [None] * len(requests)
        found = self._answer(requests, self._spec.generate_budget, self._new_tokens, self._generate_limit, self._write)
        for index, row, answer in found:
            answers[index] = generation(requests[index], row, answer)
        return self._counted(answers, started)

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return each choice's probability at the first token of the answer; see `Engine.choose`."""
        started = time.perf_counter()
        ids = self._open().preprocessor.first_token_ids(choices)
        answers: list[Choice | None] = [None] * len(requests)
        budget, limit = self._spec.choose_budget, self._choose_limit
        found = self._answer(requests, budget, lambda _: 1, limit, lambda batch, _: self._choose(batch, ids))
        for index, row, answer in found:
            answers[index] = choice(requests[index], row, answer)
        return self._counted(answers, started)

    def stream(self, request: Request) -> Generator[str, None, Generation]:
        """Yield an answer in pieces while it is generated, and return it; closing the generator ends that."""
        started = time.perf_counter()
        (row,) = self._encoding.submit(self._encode_group, [request], [0], self._spec.generate_budget).result()
        if isinstance(row, Failure):
            return self._counted([generation(request, None, row)], started)[0]
        pieces: SimpleQueue[str | None] = SimpleQueue()
        stopped = threading.Event()
        settings = {
            "streamer": PieceStreamer(self._decode, pieces.put),
            "stopping_criteria": StoppingCriteriaList([StopWhen(stopped)]),
        }

        def write() -> Written | Failure:
            try:
                images, new = request.image is not None, self._new_tokens(request)
                with self._using_adapter(request.adapter):
                    run = self._run(
                        [row], new, self._generate_limit, lambda batch, new: self._write(batch, new, **settings),
                        images=images,
                    )  # fmt: skip
                    ((_, answer),) = run
                    return answer
            finally:
                pieces.put(None)

        with ThreadPoolExecutor(max_workers=1) as writer:
            writing = writer.submit(write)
            try:
                while (piece := pieces.get()) is not None:
                    yield piece
            finally:
                stopped.set()
            answer = writing.result()
        return self._counted([generation(request, row, answer)], started)[0]

    def prepare(self, requests: Sequence[Request], *, choosing: bool) -> None:
        """Begin to encode the first batches of a call, without waiting; the call is given the same list.

        Thread-safe, unlike the rest: another thread may be in a call.
        """
        budget = self._spec.choose_budget if choosing else self._spec.generate_budget
        if groups := self._groups(requests):
            self._prepared[id(requests)] = self._encoding.submit(self._encode_group, requests, groups[0], budget)

    def discard(self, requests: Sequence[Request]) -> None:
        """Forget what was prepared for a call that will not come."""
        self._prepared.pop(id(requests), None)

    def stats(self) -> EngineStats:
        """Return statistics since the checkpoint was loaded."""
        return self._stats

    def close(self) -> None:
        """Free the model and its memory; see `Engine.close`."""
        self._loaded = None
        self._encoding.shutdown(wait=False, cancel_futures=True)
        free_memory()

    def _open(self) -> LoadedCheckpoint:
        if self._loaded is None:
            raise EngineError(f"the engine of checkpoint {self._spec.checkpoint} is closed")
        return self._loaded

    def _answer(
        self,
        requests: Sequence[Request],
        budget: int,
        new_tokens: Callable[[Request], int],
        limit: TokenLimit,
        run: Callable[[dict[str, Tensor], int], Sequence[Answer]],
    ) -> Iterator[tuple[int, TensorRow | None, Answer | Failure]]:
        """Yield each request's index, its row if it has one, and its answer."""
        self._open()
        groups = self._groups(requests)
        pending = self._prepared.pop(id(requests), None)
        for number, group in enumerate(groups):
            if pending is None:
                pending = self._encoding.submit(self._encode_group, requests, group, budget)
            rows = pending.result()
            pending = None
            if number + 1 < len(groups):
                pending = self._encoding.submit(self._encode_group, requests, groups[number + 1], budget)
            ready: list[tuple[int, TensorRow]] = []
            for index, row in zip(group, rows, strict=True):
                if isinstance(row, Failure):
                    yield index, None, row
                else:
                    ready.append((index, row))
            first = requests[group[0]]
            with self._using_adapter(first.adapter if ready else None):
                alike = [row for _, row in ready]
                for place, answer in self._run(alike, new_tokens(first), limit, run, images=first.image is not None):
                    yield *ready[place], answer

    def _encode_group(self, requests: Sequence[Request], group: list[int], budget: int) -> list[TensorRow | Failure]:
        return [self._encode(requests[index], budget) for index in group]

    def _groups(self, requests: Sequence[Request]) -> list[list[int]]:
        """Group requests that are prepared together: all with or without an image, of one adapter and one limit."""
        alike: dict[tuple[bool, str | None, int], list[int]] = {}
        for index, request in enumerate(requests):
            kind = (request.image is not None, request.adapter, self._new_tokens(request))
            alike.setdefault(kind, []).append(index)
        groups = []
        for (images, *_), group in alike.items():
            step = WINDOW * self._spec.batch_size if images else len(group)
            groups += [group[start : start + step] for start in range(0, len(group), step)]
        return groups

    @contextmanager
    def _using_adapter(self, adapter: str | None) -> Iterator[None]:
        """Use the model with one adapter, or with none."""
        adapters = self._open().adapters
        if adapters is None:
            yield
        elif adapter is None:
            with adapters.disable_adapter():
                yield
        else:
            adapters.set_adapter(adapter)
            yield

    def _run(
        self,
        rows: Sequence[TensorRow],
        new_tokens: int,
        limit: TokenLimit,
        run: Callable[[dict[str, Tensor], int], Sequence[Answer]],
        *,
        images: bool,
    ) -> Iterator[tuple[int, Answer | Failure]]:
        """Answer rows that all have an image, or all have none."""

        def run_batch(batch: list[int]) -> Sequence[Answer]:
            chosen = [rows[index] for index in batch]
            try:
                with torch.inference_mode():
                    answers = run(self._move(collate(chosen)), new_tokens)
            except Exception as error:
                if is_out_of_memory(error) and len(batch) > 1:
                    limit.failed(len(batch) * (max(row.tokens for row in chosen) + new_tokens), len(batch))
                raise
            limit.succeeded()
            return answers

        lengths = [row.tokens + new_tokens for row in rows]
        size = limit.rows if images else self._spec.batch_size  # the vision encoder's memory is per image
        batches = plan(lengths, size, limit.tokens, self._alone_above)
        return run_batches(batches, run_batch, out_of_memory=is_out_of_memory, fatal=is_fatal, recover=free_memory)

    def _move(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value.to(self._device, self._dtype if value.is_floating_point() else None)
            for name, value in batch.items()
        }

    def _new_tokens(self, request: Request) -> int:
        return min(request.max_new_tokens or self._spec.max_new_tokens, self._spec.max_new_tokens)

    def _write(self, batch: dict[str, Tensor], new_tokens: int, **settings: Any) -> list[Written]:
        outputs = self._open().model.generate(
            **batch, generation_config=self._generation, max_new_tokens=new_tokens, **settings
        )
        rows = outputs[:, batch["input_ids"].shape[1] :].tolist()
        answers = []
        for ids in rows:
            end = next((place for place, token in enumerate(ids) if token in self._ends), None)
            length = len(ids) if end is None else end + 1
            text = self._decode(ids[:length], skip_special_tokens=True).strip()
            answers.append(Written(text, length, truncated=end is None))
        return answers

    def _choose(self, batch: dict[str, Tensor], ids: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
        settings: dict[str, Any] = {"use_cache": False}
        if "position_ids" in self._accepts:  # padding must not count as positions
            settings["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        if "logits_to_keep" in self._accepts:
            settings["logits_to_keep"] = 1
        logits = self._open().model(**batch, **settings).logits[:, -1].float()
        sums = torch.stack([logits[:, list(own)].logsumexp(-1) for own in ids], dim=-1)
        return [tuple(row) for row in sums.softmax(-1).tolist()]

    def _counted(self, answers: Sequence[Result | None], started: float) -> list[Result]:
        done = [answer for answer in answers if answer is not None]
        assert len(done) == len(answers)
        self._stats = counted(self._stats, done, time.perf_counter() - started)
        return done
