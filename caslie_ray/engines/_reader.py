"""What reads prompts for a checkpoint: everything of it but its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoProcessor, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from caslie_ray.engines._chat import Chat
from caslie_ray.engines._choices import first_token_ids
from caslie_ray.engines._facts import chat_template
from caslie_ray.engines._families import IMAGE_FAMILIES, TEXT_FAMILY, Family
from caslie_ray.engines.checkpoints import CheckpointError, resolve
from caslie_ray.engines.downloads import local_snapshot
from caslie_ray.engines.load_errors import classify
from caslie_ray.engines.revisions import pinned
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError

__all__ = ["Reader", "Source", "find_source", "load_reader", "read_settings"]


class Source(NamedTuple):
    """Where a checkpoint's files come from.

    Attributes:
        location: a folder.
        where: keyword arguments that every `from_pretrained` takes.
    """

    location: str
    where: dict[str, Any]


class Reader(NamedTuple):
    """The settings of a checkpoint, its tokenizer, and what writes its prompts; `processor` is None for text."""

    config: Any
    tokenizer: Any
    processor: Any
    family: Family
    chat: Chat

    def first_token_ids(self, choices: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The ids that an answer of each choice may begin with; see `_choices.first_token_ids`."""

        def encode(text: str) -> list[int]:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
            return ids

        return first_token_ids(encode, choices, self.tokenizer.unk_token_id)


def find_source(spec: EngineSpec, *, weights: bool = True) -> Source:
    """Find a checkpoint on this machine; no code of it is ever run. One of the hub is downloaded where it is missing.

    Args:
        spec: the checkpoint.
        weights: whether its weights are wanted, or only its settings and its tokenizer.

    Raises:
        CheckpointError: there is no such checkpoint.
        LoadError: the hub does not give it.
    """
    found = resolve(spec.checkpoint)
    where: dict[str, Any] = {"trust_remote_code": False}
    if not found.is_local:
        commit = pinned(spec).revision
        assert commit is not None
        return Source(str(local_snapshot(found.location, commit, weights=weights)), where)
    if found.gguf_file:
        where["gguf_file"] = found.gguf_file
    return Source(found.location, where)


def read_settings(spec: EngineSpec) -> Reader:
    """Load all of a checkpoint but its weights, which are not downloaded.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        EngineError: see `load_reader`.
    """
    try:
        return load_reader(spec, find_source(spec, weights=False))
    except EngineError:
        raise
    except Exception as error:  # Each loader raises types of its own; the user needs the checkpoint's name.
        failure = classify(error)
        mend = f"; {failure.mend}" if failure.mend else ""
        raise CheckpointError(f"checkpoint {spec.checkpoint} cannot be read: {failure.reason}{mend}") from error


def load_reader(spec: EngineSpec, source: Source) -> Reader:
    """Load all of a checkpoint but its weights.

    Images are resized by Pillow on every machine, torchvision or not, so that a caption does not depend on it.

    Raises:
        EngineError: no engine runs such a checkpoint, it has no chat template, or its context is too short.
    """
    logging.disable_progress_bar()
    location, where = source
    config = AutoConfig.from_pretrained(location, **where)
    family = IMAGE_FAMILIES.get(config.model_type, TEXT_FAMILY)
    if not family.sees and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise EngineError(
            f"checkpoint {spec.checkpoint} is of the family {config.model_type!r}, which this engine cannot "
            f"run; it runs text models, and with images {', '.join(IMAGE_FAMILIES)}"
        )
    positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if positions is not None and spec.context > positions:
        raise EngineError(
            f"checkpoint {spec.checkpoint} reads {positions} tokens at most; its context is {spec.context}"
        )
    processor: Any = None
    if family.sees:
        processor = AutoProcessor.from_pretrained(location, **where, backend="pil")
        tokenizer = processor.tokenizer
        if getattr(processor, "num_query_tokens", 0) is None:  # BLIP-2 checkpoints of before 2024 do not say it.
            processor.num_query_tokens = config.num_query_tokens
    else:
        tokenizer = AutoTokenizer.from_pretrained(location, **where)
    image_token = str(getattr(processor, "image_token", "")) or None
    chat = Chat(spec.checkpoint, tokenizer, family, chat_template(processor, tokenizer), image_token)
    return Reader(config, tokenizer, processor, family, chat)
