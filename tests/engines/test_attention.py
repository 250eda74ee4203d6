"""Attention of groups of query heads, against the same on copies of keys and values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from caslie_ray.engines.transformers._attention import GROUPED_SDPA

grouped_sdpa: Any = AttentionInterface()[GROUPED_SDPA]


class Layer(torch.nn.Module):
    """An attention layer, as transformers reads it."""

    is_causal = False

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups


def tensors(heads: int, shared: int, queries: int, keys: int = 37) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(0)
    shapes = [(3, heads, queries, 16), (3, shared, keys, 16), (3, shared, keys, 16)]
    return tuple(torch.randn(shape, generator=random) for shape in shapes)


def mask_of(heads: int, queries: int, keys: int = 37) -> torch.Tensor:
    """A mask that differs by row and head, and leaves every query some keys."""
    kept = torch.rand(3, heads, queries, keys, generator=torch.Generator().manual_seed(1)) > 0.4
    kept[..., 0] = True
    return kept


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize(("heads", "shared"), [(8, 2), (6, 3), (4, 4)])
@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("additive", [False, True])
def test_groups_attend_as_copies_do(heads: int, shared: int, queries: int, per_head: bool, additive: bool) -> None:
    query, key, value = tensors(heads, shared, queries)
    mask = mask_of(heads if per_head else 1, queries)
    if additive:
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    layer = Layer(heads // shared)
    expected, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.3)
    found, _ = grouped_sdpa(layer, query, key, value, mask, scaling=0.3)
    assert found.shape == (3, queries, heads, 16)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_without_a_mask_transformers_decides() -> None:
    query, key, value = tensors(8, 2, 1)
    expected, _ = sdpa_attention_forward(Layer(4), query, key, value, None)
    assert torch.equal(grouped_sdpa(Layer(4), query, key, value, None)[0], expected)


def test_a_padded_batch_is_continued_alike(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=101, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    ids = torch.randint(3, 101, (2, 9))
    attended = torch.ones_like(ids)
    attended[1, :4] = 0
    found = []
    for name in ("sdpa", GROUPED_SDPA):
        model: Any = LlamaForCausalLM.from_pretrained(tmp_path, attn_implementation=name)
        assert model.config._attn_implementation == name
        out = model.generate(
            ids, attention_mask=attended, max_new_tokens=12, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        found.append((out.sequences, torch.stack(out.logits)))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)
