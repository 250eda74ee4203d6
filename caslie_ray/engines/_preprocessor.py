"""A checkpoint's configuration, tokenizer, image processor and chat template, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoProcessor, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from caslie_ray.engines._architectures import IMAGE_ARCHITECTURES, TEXT_ARCHITECTURE, Architecture
from caslie_ray.engines._chat import Chat
from caslie_ray.engines._checkpoints import CheckpointError
from caslie_ray.engines._choice_tokens import first_token_ids
from caslie_ray.engines._config_facts import chat_template
from caslie_ray.engines._source import Source, find_source
from caslie_ray.engines.load_errors import classify
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError

__all__ = ["Preprocessor", "load_preprocessor", "read_config", "read_preprocessor"]


class Preprocessor(NamedTuple):
    """Everything of a checkpoint except its weights.

    Attributes:
        config: its configuration.
        tokenizer: its tokenizer.
        processor: prepares images together with text; None for a text checkpoint.
        architecture: which inputs it takes.
        chat: renders prompts in its chat template.
    """

    config: Any
    tokenizer: Any
    processor: Any
    architecture: Architecture
    chat: Chat

    def first_token_ids(self, choices: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Return the ids that an answer of each choice may begin with; see `_choice_tokens.first_token_ids`."""

        def encode(text: str) -> list[int]:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
            return ids

        return first_token_ids(encode, choices, self.tokenizer.unk_token_id)


def read_config(spec: EngineSpec) -> Any:
    """Return a checkpoint's configuration as transformers reads it; weights are not downloaded.

    Raises:
        CheckpointError: there is no such checkpoint, or its configuration cannot be read.
        LoadError: the hub refuses it or cannot be reached.
    """
    try:
        source = find_source(spec, weights=False)
        return AutoConfig.from_pretrained(source.location, **source.arguments)
    except EngineError:
        raise
    except Exception as error:  # each preprocessor raises types of its own; the user needs the checkpoint's name
        raise _unreadable(spec, error) from error


def read_preprocessor(spec: EngineSpec) -> Preprocessor:
    """Load a checkpoint's preprocessor; weights are not downloaded.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        EngineError: see `load_preprocessor`.
    """
    try:
        return load_preprocessor(spec, find_source(spec, weights=False))
    except EngineError:
        raise
    except Exception as error:  # each loader raises types of its own; the user needs the checkpoint's name
        raise _unreadable(spec, error) from error


def load_preprocessor(spec: EngineSpec, source: Source) -> Preprocessor:
    """Load the preprocessor of a checkpoint that is on this machine.

    Images are resized by Pillow on every machine, with or without torchvision, so that captions do not depend on it.

    Raises:
        EngineError: the architecture is not supported, there is no chat template, or `context` exceeds the model's.
    """
    logging.disable_progress_bar()
    location, arguments = source
    config = AutoConfig.from_pretrained(location, **arguments)
    architecture = IMAGE_ARCHITECTURES.get(config.model_type, TEXT_ARCHITECTURE)
    if not architecture.takes_images and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise EngineError(
            f"checkpoint {spec.checkpoint} is of the family {config.model_type!r}, which this engine cannot "
            f"run; it runs text models, and with images {', '.join(IMAGE_ARCHITECTURES)}"
        )
    positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if positions is not None and spec.context > positions:
        raise EngineError(
            f"checkpoint {spec.checkpoint} reads {positions} tokens at most; its context is {spec.context}"
        )
    processor: Any = None
    if architecture.takes_images:
        processor = AutoProcessor.from_pretrained(location, **arguments, backend="pil")
        tokenizer = processor.tokenizer
        if getattr(processor, "num_query_tokens", 0) is None:  # missing in BLIP-2 checkpoints from before 2024
            processor.num_query_tokens = config.num_query_tokens
    else:
        tokenizer = AutoTokenizer.from_pretrained(location, **arguments)
    image_token = str(getattr(processor, "image_token", "")) or None
    chat = Chat(spec.checkpoint, tokenizer, architecture, chat_template(processor, tokenizer), image_token)
    return Preprocessor(config, tokenizer, processor, architecture, chat)


def _unreadable(spec: EngineSpec, error: Exception) -> CheckpointError:
    failure = classify(error)
    mend = f"; {failure.mend}" if failure.mend else ""
    return CheckpointError(f"checkpoint {spec.checkpoint} cannot be read: {failure.reason}{mend}")
