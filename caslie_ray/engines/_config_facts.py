"""Facts from a checkpoint's configuration: chat template, end tokens, and RoPE scaling."""

from __future__ import annotations

from typing import Any, cast

__all__ = ["chat_template", "end_ids", "rope_switch"]


def chat_template(processor: Any, tokenizer: Any) -> str | None:
    """Return the chat template of a checkpoint, ``default`` if there are several, or None."""
    for owner in (processor, tokenizer):
        template = getattr(owner, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if template:
            return cast(str, template)
    return None


def end_ids(generation: Any, config: Any, tokenizer: Any) -> set[int]:
    """Return the end-of-sequence ids of the generation config, the model config and the tokenizer together."""
    ids: set[int] = set()
    for owner in (generation, config.get_text_config(decoder=True), tokenizer):
        end = getattr(owner, "eos_token_id", None)
        ids.update(end if isinstance(end, list) else [] if end is None else [end])
    return ids


def rope_switch(config: Any) -> int | None:
    """Return the length above which RoPE scaling changes, or None.

    Phi-3's long RoPE switches for an entire batch as soon as one of its rows exceeds this length. Longer rows run
    alone, so that an answer does not depend on its batch.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("longrope", "dynamic"):
        return None
    length = rope.get("original_max_position_embeddings")
    return int(length or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
