"""The loss of answers, as a module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

__all__ = ["ResponseLoss"]


class ResponseLoss(nn.Module):
    """The summed loss of the answers' tokens, and of nothing else.

    Logits are computed where an answer stands and nowhere else: over the vocabulary of a real model those of the
    prompts would take most of the memory.

    Args:
        model: a causal model with an adapter.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        """Return the sum of the negative log likelihoods, in nats, as float32.

        Args:
            inputs: (rows, tokens) each.
            labels: (rows, tokens): the token that follows, -100 where no loss is taken.
        """
        base = self.model.get_base_model()
        hidden = base.get_decoder()(**inputs, use_cache=False).last_hidden_state
        wanted = labels != -100
        if not bool(wanted.any()):
            # Every layer runs, for its forward pass is collective where the base is sharded.
            nothing: Tensor = base.get_output_embeddings()(hidden[:, :1]).sum().float() * 0.0
            return nothing
        logits = base.get_output_embeddings()(hidden[wanted])
        return nn.functional.cross_entropy(logits.float(), labels[wanted], reduction="sum")
