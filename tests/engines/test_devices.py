"""On which devices a model is loaded, within which share of one, and how it is split over several GPUs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import check_device_map
from transformers import AutoModelForImageTextToText
from transformers.integrations.accelerate import compute_module_sizes
from transformers.models.mistral.modeling_mistral import MistralPreTrainedModel

from caslie_ray.engines import EngineSpec, Request
from caslie_ray.engines._device import find_devices, limit_memory
from caslie_ray.engines._preprocessor import read_config
from caslie_ray.engines._replica_memory import GIB, replica_memory, without_weights
from caslie_ray.engines.load_errors import LoadError, classify
from caslie_ray.engines.memory import CARDS
from caslie_ray.engines.transformers import TransformersEngine
from caslie_ray.engines.transformers._device_map import split_over
from caslie_ray.engines.transformers._loading import _split, load_checkpoint
from caslie_ray.errors import EngineError
from caslie_ray.prompts import Prompt
from tests.engines import tiny
from tests.engines.conftest import MakeCheckpoint, tiny_spec
from tests.engines.shapes import config_of

VISION = "meta-llama/Llama-3.2-11B-Vision-Instruct"
CUDA = [torch.device("cuda", number) for number in range(4)]


def spec_of(batch_size: int, checkpoint: str = VISION) -> EngineSpec:
    return EngineSpec(checkpoint, dtype="bfloat16", batch_size=batch_size, batch_tokens=2048 * batch_size)


def free(gpus: int) -> list[int]:
    """Cards of 24 GB."""
    return [int(CARDS[24] * GIB)] * gpus


@pytest.mark.parametrize(("gpus", "batch_size"), [(2, 8), (4, 16)])
def test_cards_of_24_gb_hold_the_paper_s_captioner_together(gpus: int, batch_size: int) -> None:
    config, spec = config_of(VISION), spec_of(batch_size)
    placed = split_over(free(gpus), config, spec)
    model = without_weights(config, torch.bfloat16)
    check_device_map(model, placed)  # raises where a weight is left out
    assert set(placed.values()) == set(range(gpus))
    assert placed["model.vision_model"] == placed["model.language_model.embed_tokens"] == 0

    layers = [f"model.language_model.layers.{number}" for number in range(40)]
    assert all(layer in placed for layer in layers)  # so none is split
    assert [placed[layer] for layer in layers] == sorted(placed[layer] for layer in layers)

    sizes, _ = compute_module_sizes(model)
    held: Counter[int] = Counter()
    for name, gpu in placed.items():
        held[gpu] += sizes[name]
    memory = replica_memory(config, replace(spec, gpus=float(gpus)))
    assert sum(held.values()) == pytest.approx(memory.weights * gpus, rel=0.001)
    for gpu in range(gpus):
        phase = memory.kv_cache + memory.work
        assert held[gpu] + max(phase, 0 if gpu else memory.vision) + memory.fixed <= CARDS[24] * GIB


def test_a_batch_that_leaves_no_room_for_the_weights_is_refused() -> None:
    with pytest.raises(EngineError, match=r"does not fit 2 GPUs: it has 19\.9 GiB of weights.*lower batch_size"):
        split_over(free(2), config_of(VISION), spec_of(16))
    with pytest.raises(EngineError, match="does not fit 2 GPUs"):
        split_over([4 * GIB, 80 * GIB], config_of(VISION), spec_of(8))  # the first has no room for images


def test_gpus_used_by_other_processes_are_a_reason_to_retry() -> None:
    total, config = int(CARDS[24] * GIB), config_of(VISION)
    with pytest.raises(LoadError, match=r"does not fit 2 GPUs.*other processes use 20\.0 of 22\.0, 0\.0 of") as caught:
        _split([(total - 20 * GIB, total), (total, total)], config, spec_of(8))
    assert caught.value.failure.kind == "retry"
    assert "wait until" in caught.value.failure.mend
    with pytest.raises(EngineError, match="does not fit 2 GPUs") as final:
        _split([(total - 20 * GIB, total), (total, total)], config, spec_of(16))
    assert classify(final.value).kind == "final"
    assert set(_split([(total, total)] * 2, config, spec_of(8)).values()) == {0, 1}


def test_a_model_without_a_list_of_unsplit_modules_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MistralPreTrainedModel, "_no_split_modules", None)
    name = "mistralai/Mistral-7B-Instruct-v0.3"
    with pytest.raises(EngineError, match=r"has no list of modules that may not be split.*over 2 GPUs.*alone\.gpus"):
        split_over(free(2), config_of(name), spec_of(4, name))


def test_text_models_are_split_too() -> None:
    name = "meta-llama/Llama-2-13b-chat-hf"
    placed = split_over(free(2), config_of(name), spec_of(4, name))
    check_device_map(without_weights(config_of(name)), placed)
    assert set(placed.values()) == {0, 1}


def test_a_split_model_answers_like_an_unsplit_one(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    # The hooks that carry tensors between devices are at work here between main memory and disk.
    spec = tiny_spec(checkpoint("mllama"))
    config = read_config(spec)
    memory = replica_memory(config, replace(spec, gpus=2.0))
    need = memory.fixed + max(memory.vision, memory.kv_cache + memory.work)
    placed = split_over([need + 340_000] * 2, config, spec)
    assert set(placed.values()) == {0, 1}
    kinds: dict[int, Any] = {0: "cpu", 1: "disk"}
    auto: Any = AutoModelForImageTextToText
    split = auto.from_pretrained(
        spec.checkpoint,
        device_map={name: kinds[gpu] for name, gpu in placed.items()},
        offload_folder=tmp_path,
        attn_implementation="sdpa",
    )
    assert len(set(split.hf_device_map.values())) == 2

    engine = TransformersEngine(spec)
    asked = [Request(str(n), Prompt("Is it red? " * n), tiny.image(30 * n, 40)) for n in (1, 2, 3)]
    written, chosen = engine.generate(asked), engine.choose(asked, ["yes", "no"])
    engine._loaded = engine._open()._replace(model=split.eval())
    assert engine.generate(asked) == written
    for got, want in zip(engine.choose(asked, ["yes", "no"]), chosen, strict=True):
        assert got.probabilities == pytest.approx(want.probabilities, abs=1e-5)


def test_adapters_of_a_split_model_are_refused(checkpoint: MakeCheckpoint) -> None:
    spec = tiny_spec(checkpoint("llama"), adapters={"mine": "folder"})
    with pytest.raises(EngineError, match=r"split over 2 GPUs.*no adapters \(mine\); set engine to vllm.*alone\.gpus"):
        load_checkpoint(spec, CUDA[:2])


@pytest.mark.parametrize(
    ("name", "gpus", "expected"),
    [
        ("cuda", 0.0, [torch.device("cuda")]),
        ("cuda", 0.5, [torch.device("cuda")]),
        ("cuda", 1.0, [torch.device("cuda")]),
        ("cuda", 2.0, CUDA[:2]),
        ("auto", 4.0, CUDA),
        ("cuda:3", 1.0, [CUDA[3]]),
        ("cpu", 2.0, [torch.device("cpu")]),
    ],
)
def test_several_gpus_are_the_first_visible_ones(
    monkeypatch: pytest.MonkeyPatch, name: str, gpus: float, expected: list[torch.device]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_devices(name, gpus) == expected


def test_missing_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(EngineError, match="device 'cuda' is not there"):
        find_devices("cuda", 2.0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EngineError, match="split over 2 GPUs; CUDA GPUs here: 1"):
        find_devices("cuda", 2.0)
    with pytest.raises(EngineError, match="device 'cuda:0' is one GPU"):
        find_devices("cuda:0", 2.0)


@pytest.mark.parametrize(
    ("device", "gpus", "limit"),
    [("cuda", 0.5, (0.475, None)), ("cuda:1", 0.2, (0.19, 1)), ("cuda", 1.0, None), ("cuda", 0.0, None),
     ("cuda", 2.0, None), ("cpu", 0.5, None)],
)  # fmt: skip
def test_a_fraction_of_a_gpu_limits_its_memory(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: float, limit: tuple[float, int | None] | None
) -> None:
    set_to: list[tuple[float, int | None]] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *given: set_to.append(given))
    limit_memory(torch.device(device), gpus)
    assert set_to == ([] if limit is None else [pytest.approx(limit)] if limit[1] is not None else [(limit[0], None)])
