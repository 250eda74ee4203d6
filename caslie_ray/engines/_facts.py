"""What a loaded checkpoint tells about itself."""

from __future__ import annotations

from typing import Any, cast

__all__ = ["chat_template", "end_ids", "rope_switch"]


def chat_template(processor: Any, tokenizer: Any) -> str | None:
    """The chat template of a checkpoint, ``default`` where there are several; None without one."""
    for owner in (processor, tokenizer):
        template = getattr(owner, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if template:
            return cast(str, template)
    return None


def end_ids(generation: Any, config: Any, tokenizer: Any) -> set[int]:
    """Ids of the tokens that end an answer, by the settings of generation and model, and by the tokenizer."""
    ids: set[int] = set()
    for owner in (generation, config.get_text_config(decoder=True), tokenizer):
        told = getattr(owner, "eos_token_id", None)
        ids.update(told if isinstance(told, list) else [] if told is None else [told])
    return ids


def rope_switch(config: Any) -> int | None:
    """The length above which a text model encodes positions in another way, or None.

    Phi-3's long rope does, and for a whole batch as soon as one of its rows is so long. To give a row the
    same answer in any company, longer rows run alone.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("longrope", "dynamic"):
        return None
    length = rope.get("original_max_position_embeddings")
    return int(length or getattr(config, "original_max_position_embeddings", config.max_position_embeddings))
