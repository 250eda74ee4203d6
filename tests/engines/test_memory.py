"""The memory of a replica against the peak of transformers' own forward passes, at the sizes of the paper's models."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from caslie_ray.engines import EngineSpec
from caslie_ray.engines._preprocessor import read_config
from caslie_ray.engines._replica_memory import GIB, ReplicaMemory, kv_token_bytes, replica_memory, without_weights
from caslie_ray.engines.memory import CARDS, Role, batch_table, describe, largest_batch, memory_table, share
from caslie_ray.errors import EngineError
from tests.engines.conftest import MakeCheckpoint
from tests.engines.peak import FusedAttention, Peak
from tests.engines.shapes import config_of

VISION = "meta-llama/Llama-3.2-11B-Vision-Instruct"
SMALL = "meta-llama/Llama-3.2-3B-Instruct"
PHI = "microsoft/Phi-3.5-mini-instruct"
SPEC = EngineSpec("any", dtype="bfloat16", batch_size=16, batch_tokens=32768, context=2048)


def meta(*shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def image_inputs(images: int) -> dict[str, torch.Tensor]:
    """What Mllama's processor makes of images: 4 tiles of 560 × 560 each."""
    return {
        "pixel_values": meta(images, 1, 4, 3, 560, 560, dtype=torch.bfloat16),
        "aspect_ratio_ids": meta(images, 1),
        "aspect_ratio_mask": meta(images, 1, 4),
    }


def peak_of(run: Any, inputs: dict[str, Any]) -> tuple[int, int]:
    """The peak of a forward pass with its inputs, and what its outputs keep alive."""
    with torch.inference_mode(), Peak() as watched, FusedAttention():
        kept = run(**inputs)
    live = watched.live
    del kept
    return watched.peak + sum(value.nbytes for value in inputs.values() if isinstance(value, torch.Tensor)), live


@pytest.mark.parametrize("images", [1, 16, 48])
def test_the_vision_encoder_takes_what_its_forward_pass_takes(images: int) -> None:
    config = config_of(VISION)
    encoder = without_weights(config, torch.bfloat16).model.vision_model
    measured = peak_of(encoder, image_inputs(images))[0]
    computed = replica_memory(config, replace(SPEC, batch_size=images)).vision
    assert measured <= computed <= 1.02 * measured


@pytest.mark.parametrize(("rows", "length"), [(1, 2048), (16, 256), (16, 2048), (48, 682)])
def test_the_captioner_s_language_model_takes_what_its_forward_pass_takes(rows: int, length: int) -> None:
    config = config_of(VISION)
    model = without_weights(config, torch.bfloat16)

    def encoded(pixel_values: torch.Tensor, **_: Any) -> Any:
        states = torch.empty(len(pixel_values), 1, 4, 1601, 7680, dtype=torch.bfloat16, device="meta")
        return SimpleNamespace(last_hidden_state=states)

    model.model.vision_model.forward = encoded  # its own peak is another test's
    inputs = {
        "input_ids": meta(rows, length),
        "attention_mask": meta(rows, 1, length, length, dtype=torch.bool),
        "cross_attention_mask": meta(rows, length, 1, 4),
        "use_cache": True,
        "logits_to_keep": 1,
        **image_inputs(rows),
    }
    measured, left = peak_of(model, inputs)
    spec = replace(SPEC, batch_size=rows, context=length, max_new_tokens=8, batch_tokens=rows * length)
    memory = replica_memory(config, spec)
    assert memory.kv_cache == pytest.approx(left, rel=0.01)
    assert 0.99 * measured <= memory.kv_cache + memory.work <= 1.08 * measured


@pytest.mark.parametrize("name", [SMALL, PHI])
@pytest.mark.parametrize("cached", [True, False])
def test_a_text_model_takes_what_its_forward_pass_takes(name: str, cached: bool) -> None:
    config = config_of(name)
    inputs = {
        "input_ids": meta(8, 2048),
        "attention_mask": meta(8, 1, 2048, 2048, dtype=torch.bool),
        "use_cache": cached,
        "logits_to_keep": 1,
    }
    measured, left = peak_of(without_weights(config, torch.bfloat16), inputs)
    memory = replica_memory(config, replace(SPEC, batch_size=8, batch_tokens=8 * 2048))
    assert memory.vision == 0
    if cached:
        assert memory.kv_cache == pytest.approx(left, rel=0.01)
    computed = memory.work + (memory.kv_cache if cached else 0)
    assert measured <= computed <= 1.03 * measured


def test_the_larger_phase_counts() -> None:
    memory = ReplicaMemory(weights=100, kv_cache=20, vision=50, work=10, fixed=1)
    assert memory.total == 151
    assert memory._replace(kv_cache=45).total == 156


def test_the_paper_s_captioner_at_sixteen_images() -> None:
    memory = replica_memory(config_of(VISION), SPEC)
    weights, kv_cache, vision, work, fixed = (round(part / GIB, 1) for part in memory)
    assert (weights, kv_cache, vision, work, fixed) == (19.9, 7.1, 14.1, 6.4, 1.0)
    assert memory.total / GIB == pytest.approx(35.0, abs=0.1)
    assert kv_token_bytes(config_of(VISION), SPEC) == 128 * 1024


def test_vllm_keeps_no_more_than_its_kv_cache() -> None:
    spec = replace(SPEC, engine="vllm", batch_size=32, batch_tokens=16384)
    memory = replica_memory(config_of(PHI), spec)
    tokens = 16384 + (32 + 64) * 16
    assert memory.kv_cache == tokens * 384 * 1024
    assert memory.vision == 0


def test_split_over_gpus_weights_and_cache_are_divided() -> None:
    whole, half = (replica_memory(config_of(VISION), replace(SPEC, gpus=gpus)) for gpus in (1.0, 2.0))
    assert half == whole._replace(weights=whole.weights // 2, kv_cache=whole.kv_cache // 2)


@pytest.mark.parametrize(
    ("gib", "card", "expected"),
    [(3.0, 74.0, 0.05), (37.0, 74.0, 0.5), (37.1, 74.0, 0.55), (59.2, 74.0, 0.8), (60.0, 74.0, 1.0), (74.0, 74.0, 1.0),
     (74.1, 74.0, None)],
)  # fmt: skip
def test_shares_are_rounded_up(gib: float, card: float, expected: float | None) -> None:
    assert share(ReplicaMemory(int(gib * GIB), 0, 0, 0, 0), card) == expected


@pytest.mark.parametrize("card", [24, 40, 80])
def test_the_largest_batch_fits_and_the_next_does_not(card: int) -> None:
    config = config_of(VISION)
    found = largest_batch(config, SPEC, CARDS[card])
    if found is None:
        assert replica_memory(config, replace(SPEC, batch_size=1, batch_tokens=2048)).total > CARDS[card] * GIB * 0.9
        return
    assert replica_memory(config, replace(SPEC, batch_size=found)).total <= CARDS[card] * GIB
    assert replica_memory(config, replace(SPEC, batch_size=found + 16)).total > CARDS[card] * GIB


def test_a_table_has_a_line_for_each_role() -> None:
    roles = [Role("captioner", config_of(VISION), SPEC), Role("phi", config_of(PHI), replace(SPEC, engine="vllm"))]
    head, captioner, phi = memory_table(roles, [24, 80])
    assert head.split()[-4:] == ["24", "GB", "80", "GB"]
    assert captioner.split() == ["captioner", "19.9", "128", "KiB", "7.1", "14.1", "6.4", "35.0", "no", "0.5"]
    assert phi.split()[:2] == ["phi", "7.1"]
    assert len({len(line) for line in (head, captioner, phi)}) == 1
    assert batch_table(roles[:1], [24, 80])[1].split() == ["captioner", "32768", "no", "56"]


def test_an_engine_whose_memory_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="the engine is 'auto'; memory is known for transformers, vllm"):
        replica_memory(config_of(SMALL), replace(SPEC, engine="auto"))


def test_only_the_configuration_of_a_checkpoint_is_read(checkpoint: MakeCheckpoint) -> None:
    spec = EngineSpec(str(checkpoint("mllama")), context=512, batch_size=2, batch_tokens=1024)
    memory = replica_memory(read_config(spec), spec)
    assert 0 < memory.weights < 2**22
    assert memory.vision > 0
    with pytest.raises(EngineError, match="nowhere"):
        read_config(replace(spec, checkpoint="./nowhere"))


def test_a_line_shows_what_a_replica_needs_and_whether_it_fits(checkpoint: MakeCheckpoint) -> None:
    spec = EngineSpec(str(checkpoint("mllama")), context=512, batch_size=2, batch_tokens=1024, gpus=0.5)
    assert describe("a", spec) == "a  1.0 GiB per replica: gpus 0.05 of 24 GB, " + ", ".join(
        f"{part} of {gb} GB" for part, gb in ((0.05, 40), (0.05, 48), (0.05, 80), (0.05, 141))
    )
    assert describe("a", spec, 74.0) == "a  1.0 GiB per replica: fits gpus 0.5 of a GPU with 74.0 GiB"
    assert "DOES NOT FIT: lower batch_size" in (describe("a", spec, 1.5) or "")
    assert "1.5 GiB per replica" in (
        describe("a", replace(spec, checkpoint=str(checkpoint("llama")), engine="vllm")) or ""
    )
    assert "and its image encoder" in (describe("a", replace(spec, checkpoint=str(checkpoint("idefics3")))) or "")


def test_no_line_is_shown_where_the_memory_is_unknown(checkpoint: MakeCheckpoint) -> None:
    spec = EngineSpec(str(checkpoint("llama")), context=512, gpus=1.0)
    assert describe("a", spec) is not None
    assert describe("a", replace(spec, gpus=0.0)) is None
    assert describe("a", replace(spec, engine="my.module:load")) is None
    assert describe("a", replace(spec, checkpoint="some-org/not-on-this-machine")) is None
