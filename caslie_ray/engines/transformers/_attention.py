"""Attention of one new token per row without copies of keys and values.

Models with fewer key-value heads than query heads share each key-value head among a group of query heads. With a
mask, transformers copies keys and values once per query head, in every layer and at every step. The cross-attention of
the paper's captioner has 6,404 keys per image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

__all__ = ["GROUPED_SDPA"]

GROUPED_SDPA = "grouped_sdpa"
"""Value of `attn_implementation`."""


def _grouped_sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Return the attention of queries, of shape [batch, queries, heads, size].

    The query heads of a group become queries of their key-value head. Anything but one query per row with a mask is
    left to transformers.

    Args:
        module: the attention layer.
        query: [batch, heads, queries, size].
        key: [batch, key-value heads, keys, size].
        value: as `key`.
        attention_mask: [batch, 1, queries, keys] or [batch, heads, queries, keys].
        options: of `sdpa_attention_forward`.
    """
    batch, heads, queries, size = query.shape
    groups = heads // key.shape[1]
    if queries > 1 or groups == 1 or attention_mask is None or options.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    mask = attention_mask
    if mask.shape[1] > 1:
        mask = mask.view(batch, heads // groups, groups, -1)
    grouped = torch.nn.functional.scaled_dot_product_attention(
        query.view(batch, heads // groups, groups, size),
        key,
        value,
        attn_mask=mask,
        dropout_p=options.get("dropout", 0.0),
        scale=options.get("scaling"),
    )
    return grouped.reshape(batch, 1, heads, -1), None


AttentionInterface.register(GROUPED_SDPA, _grouped_sdpa)
AttentionMaskInterface.register(GROUPED_SDPA, sdpa_mask)
