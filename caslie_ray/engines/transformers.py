"""Any checkpoint that transformers can load, on the CPU, on one GPU, or split over several."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationConfig

from caslie_ray.engines._adapters import read_adapters
from caslie_ray.engines._answers import Written, choice, counted, generation
from caslie_ray.engines._batching import TokenLimit, plan, run_batches
from caslie_ray.engines._device import find_devices, free_memory, is_fatal, is_out_of_memory, limit_memory
from caslie_ray.engines._device_map import split_over
from caslie_ray.engines._facts import end_ids, rope_switch
from caslie_ray.engines._reader import Reader, Source, find_source, load_reader
from caslie_ray.engines._rows import Encoder, TensorRow, TensorRows, collate
from caslie_ray.engines.base import Choice, EngineStats, Failure, Generation, Request
from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.engines.memory import GIB
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError

__all__ = ["TransformersEngine", "load"]

Answer = TypeVar("Answer")
Told = TypeVar("Told", Generation, Choice)
# Requests whose images are prepared together, in batches: enough to sort by length, few enough for memory.
WINDOW = 4


class Loaded(NamedTuple):
    """A checkpoint in memory; `adapters` is PEFT's handle on those in it, None without any."""

    model: Any
    adapters: Any
    reader: Reader


def load(spec: EngineSpec) -> TransformersEngine:
    """Load a checkpoint on transformers.

    Raises:
        EngineError: the checkpoint cannot be loaded; the message names it.
    """
    return TransformersEngine(spec)


class TransformersEngine:
    """Answers requests with a checkpoint that transformers loads.

    Prompts are tokenized and images prepared one request at a time; requests of like length then share a
    batch, padded on the left. Images of the next batches are prepared while the model works. Weights are
    read from safetensors or GGUF, never from a pickle, and no code of a checkpoint is run. Images are
    resized by Pillow on every machine, torchvision or not, so that a caption does not depend on it.
    Requests for one adapter share batches with no others. One thread may use it at a time. On a share of a GPU it
    takes no more than that share; over several GPUs the layers are spread, which makes room and is no faster.

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
        self._loaded: Loaded | None = _load(spec, devices)
        model, _, (config, tokenizer, processor, family, chat) = self._loaded
        self._encode = Encoder(chat, family, spec.context, spec.adapters, TensorRows(chat, processor))
        self._decode = tokenizer.decode
        self._accepts = set(inspect.signature(model.forward).parameters)
        self._dtype = getattr(torch, spec.dtype)
        # A batch that is too large to generate may do for a choice, which keeps no KV cache.
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
        # What is unset here, `generate` would fill from the model's own settings, sampling among them.
        for part in (model, getattr(model, "language_model", model)):
            if hasattr(part, "generation_config"):
                part.generation_config = GenerationConfig()
        self._stats = EngineStats(load_seconds=time.perf_counter() - started)

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Write an answer to each request; see `Engine.generate`."""
        started = time.perf_counter()
        answers: list[Generation | None] = [None] * len(requests)
        new = self._spec.max_new_tokens
        found = self._answer(requests, self._spec.generate_budget, new, self._generate_limit, self._generate)
        for index, row, answer in found:
            answers[index] = generation(requests[index], row, answer)
        return self._counted(answers, started)

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Give each choice's probability at the first token of the answer; see `Engine.choose`."""
        started = time.perf_counter()
        ids = self._open().reader.first_token_ids(choices)
        answers: list[Choice | None] = [None] * len(requests)
        budget, limit = self._spec.choose_budget, self._choose_limit
        found = self._answer(requests, budget, 1, limit, lambda batch: self._choose(batch, ids))
        for index, row, answer in found:
            answers[index] = choice(requests[index], row, answer)
        return self._counted(answers, started)

    def stats(self) -> EngineStats:
        """What was done since the checkpoint was loaded."""
        return self._stats

    def close(self) -> None:
        """Free the model and its memory; see `Engine.close`."""
        self._loaded = None
        free_memory()

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise EngineError(f"the engine of checkpoint {self._spec.checkpoint} is closed")
        return self._loaded

    def _answer(
        self,
        requests: Sequence[Request],
        budget: int,
        new_tokens: int,
        limit: TokenLimit,
        run: Callable[[dict[str, Tensor]], Sequence[Answer]],
    ) -> Iterator[tuple[int, TensorRow | None, Answer | Failure]]:
        """Every request's index, its row where there is one, and its answer."""
        self._open()
        groups = self._groups(requests)

        def encode(group: list[int]) -> list[TensorRow | Failure]:
            return [self._encode(requests[index], budget) for index in group]

        with ThreadPoolExecutor(max_workers=1) as ahead:
            coming = ahead.submit(encode, groups[0] if groups else [])
            for number, group in enumerate(groups):
                rows = coming.result()
                coming = ahead.submit(encode, groups[number + 1] if number + 1 < len(groups) else [])
                ready: list[tuple[int, TensorRow]] = []
                for index, row in zip(group, rows, strict=True):
                    if isinstance(row, Failure):
                        yield index, None, row
                    else:
                        ready.append((index, row))
                with self._adapted(requests[group[0]].adapter if ready else None):
                    shown = requests[group[0]].image is not None
                    for place, answer in self._run([row for _, row in ready], new_tokens, limit, run, shown=shown):
                        yield *ready[place], answer

    def _groups(self, requests: Sequence[Request]) -> list[list[int]]:
        """Requests that are prepared together; an image and none, or two adapters, never share a batch."""
        alike: dict[tuple[bool, str | None], list[int]] = {}
        for index, request in enumerate(requests):
            alike.setdefault((request.image is not None, request.adapter), []).append(index)
        groups = []
        for (shown, _), group in alike.items():
            step = WINDOW * self._spec.batch_size if shown else len(group)
            groups += [group[start : start + step] for start in range(0, len(group), step)]
        return groups

    @contextmanager
    def _adapted(self, adapter: str | None) -> Iterator[None]:
        """The model with one adapter, or with none."""
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
        run: Callable[[dict[str, Tensor]], Sequence[Answer]],
        *,
        shown: bool,
    ) -> Iterator[tuple[int, Answer | Failure]]:
        """Answer rows that all have an image, or all have none."""

        def run_batch(batch: list[int]) -> Sequence[Answer]:
            chosen = [rows[index] for index in batch]
            try:
                with torch.inference_mode():
                    answers = run(self._move(collate(chosen)))
            except Exception as error:
                if is_out_of_memory(error) and len(batch) > 1:
                    limit.failed(len(batch) * (max(row.tokens for row in chosen) + new_tokens), len(batch))
                raise
            limit.succeeded()
            return answers

        lengths = [row.tokens + new_tokens for row in rows]
        size = limit.rows if shown else self._spec.batch_size  # the vision encoder's memory is per image
        batches = plan(lengths, size, limit.tokens, self._alone_above)
        return run_batches(batches, run_batch, out_of_memory=is_out_of_memory, fatal=is_fatal, recover=free_memory)

    def _move(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value.to(self._device, self._dtype if value.is_floating_point() else None)
            for name, value in batch.items()
        }

    def _generate(self, batch: dict[str, Tensor]) -> list[Written]:
        written = self._open().model.generate(**batch, generation_config=self._generation)
        rows = written[:, batch["input_ids"].shape[1] :].tolist()
        answers = []
        for ids in rows:
            end = next((place for place, token in enumerate(ids) if token in self._ends), None)
            length = len(ids) if end is None else end + 1
            text = self._decode(ids[:length], skip_special_tokens=True).strip()
            answers.append(Written(text, length, truncated=end is None))
        return answers

    def _choose(self, batch: dict[str, Tensor], ids: Sequence[Sequence[int]]) -> list[tuple[float, ...]]:
        settings: dict[str, Any] = {"use_cache": False}
        if "position_ids" in self._accepts:  # Padding may not count as positions.
            settings["position_ids"] = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        if "logits_to_keep" in self._accepts:
            settings["logits_to_keep"] = 1
        logits = self._open().model(**batch, **settings).logits[:, -1].float()
        sums = torch.stack([logits[:, list(own)].logsumexp(-1) for own in ids], dim=-1)
        return [tuple(row) for row in sums.softmax(-1).tolist()]

    def _counted(self, answers: Sequence[Told | None], started: float) -> list[Told]:
        done = [answer for answer in answers if answer is not None]
        assert len(done) == len(answers)
        self._stats = counted(self._stats, done, time.perf_counter() - started)
        return done


def _load(spec: EngineSpec, devices: Sequence[torch.device]) -> Loaded:
    if len(devices) > 1 and spec.adapters:
        raise EngineError(
            f"checkpoint {spec.checkpoint} is split over {len(devices)} GPUs, and transformers then takes no adapters"
            f" ({', '.join(spec.adapters)}); set engine to vllm, or resources.gpus (in"
            " schedule=staged and in predict: alone.gpus) to 1"
        )
    try:
        source = find_source(spec)
        reader = load_reader(spec, source)
        model = _load_model(spec, source, reader, devices)
        return Loaded(model, _load_adapters(spec, model), reader)
    except EngineError:
        raise
    except Exception as error:  # Each loader raises types of its own; the user needs the checkpoint's name.
        raise EngineError(f"checkpoint {spec.checkpoint} cannot be loaded: {type(error).__name__}: {error}") from error


def _load_model(spec: EngineSpec, source: Source, reader: Reader, devices: Sequence[torch.device]) -> Any:
    auto: Any = AutoModelForImageTextToText if reader.family.sees else AutoModelForCausalLM
    placed: dict[str, Any] = {"": devices[0]}
    if len(devices) > 1:
        placed = _split([torch.cuda.mem_get_info(device) for device in devices], reader.config, spec)
    model, info = auto.from_pretrained(
        source.location,
        **source.where,
        config=reader.config,
        dtype=getattr(torch, spec.dtype),
        device_map=placed,
        attn_implementation="sdpa",
        use_safetensors=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:  # transformers would go on with random numbers in their place
        names = sorted(info["missing_keys"])
        raise EngineError(f"checkpoint {spec.checkpoint} lacks {len(names)} weights, the first is {names[0]}")
    return model.eval()


def _split(memory: Sequence[tuple[int, int]], config: Any, spec: EngineSpec) -> dict[str, int]:
    """Split a checkpoint over GPUs by their free memory.

    Args:
        memory: free and total bytes of each GPU, in their order.
        config: the checkpoint's configuration.
        spec: how it is run.

    Raises:
        LoadError: it fits these GPUs, and not now, since other processes use their memory.
        EngineError: it does not fit these GPUs.
    """
    try:
        return split_over([free for free, _ in memory], config, spec)
    except EngineError as error:
        split_over([total for _, total in memory], config, spec)  # what does not fit empty GPUs either is final
        used = ", ".join(f"{(total - free) / GIB:.1f} of {total / GIB:.1f}" for free, total in memory)
        reason = f"{error}; other processes use {used} GiB of these GPUs"
        mend = "wait until the other processes have freed their memory, or end them"
        raise LoadError(LoadFailure("retry", reason, mend)) from error


def _load_adapters(spec: EngineSpec, model: Any) -> Any:
    """Put the adapters into the model; PEFT's handle on them, or None without any."""
    handle: Any = None
    for name, adapter in read_adapters(spec.adapters).items():
        try:
            if handle is None:
                handle = PeftModel(model, LoraConfig.from_pretrained(adapter.path), adapter_name=name)
            result = handle.load_adapter(adapter.path, name)
        except Exception as error:  # PEFT raises what its parts raise; the user needs the adapter's name.
            raise EngineError(f"adapter {name} ({adapter.path}) does not fit {spec.checkpoint}: {error}") from error
        lacks = [key for key in result.missing_keys if f".{name}." in key]
        if result.unexpected_keys or lacks:
            what = f"which has no {result.unexpected_keys[0]}" if result.unexpected_keys else f"it lacks {lacks[0]}"
            raise EngineError(f"adapter {name} ({adapter.path}) does not fit {spec.checkpoint}, {what}")
    return handle.eval() if handle is not None else None
