"""The loss module: cross-entropy over the tokens of answers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["ResponseLoss"]


class ResponseLoss(nn.Module):
    """Summed cross-entropy over the tokens of answers only.

    Logits are computed for answers only: those of prompts, over a real model's vocabulary, would take most of the
    memory.

    Args:
        model: a causal model with an adapter.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Return the summed negative log-likelihood, in nats, as float32.

        Args:
            inputs: (rows, tokens) each.
            labels: (rows, tokens); the next token, or -100 to ignore.
        """
        base = self.model.get_base_model()
        hidden = base.get_decoder()(**inputs, use_cache=False).last_hidden_state
        wanted = labels != -100
        if not bool(wanted.any()):
            # Run every layer: with a sharded base its forward pass is collective.
            nothing: Tensor = base.get_output_embeddings()(hidden[:, :1]).sum().float() * 0.0
            return nothing
        logits = base.get_output_embeddings()(hidden[wanted])
        return nn.functional.cross_entropy(logits.float(), labels[wanted], reduction="sum")
