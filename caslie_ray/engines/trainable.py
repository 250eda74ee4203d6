"""A text checkpoint as it is trained: its model, and the token ids of what it is asked and shall answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils.import_utils import is_flash_attn_2_available

from caslie_ray.engines._device import free_memory, is_out_of_memory
from caslie_ray.engines._facts import end_ids, rope_switch
from caslie_ray.engines._reader import Reader, find_source, read_settings
from caslie_ray.engines.cutting import Fit
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError
from caslie_ray.prompts import Prompt

__all__ = [
    "Trainable", "Turn", "Turns", "attention_for", "free_memory", "is_out_of_memory", "load_trainable", "load_turns",
    "read_config",
]  # fmt: skip


# Logits are taken where answers stand, without the model's own last step.
_SCALED = ("final_logit_softcapping", "logits_scaling", "logit_scale")


class Turn(NamedTuple):
    """A prompt with its answer, as token ids.

    Attributes:
        ids: all of them, in order.
        start: where the answer begins; the loss is taken from here on.
        cut: whether user fields of the prompt lost words.
        captions_cut: whether captions in the prompt lost words.
    """

    ids: Sequence[int]
    start: int
    cut: bool
    captions_cut: bool = False


class Turns:
    """Writes prompts and answers as one checkpoint's token ids, the prompt just as the engines write it.

    Args:
        name: the checkpoint, for messages.
        reader: its tokenizer and template.
        context: tokens of prompt and answer together.

    Raises:
        EngineError: the checkpoint is no text model, or its template cannot write an answer.
    """

    def __init__(self, name: str, reader: Reader, context: int) -> None:
        if reader.family.sees or not reader.family.chat:
            raise EngineError(f"checkpoint {name} is of the family {reader.config.model_type!r}; uniM³ is a text model")
        self._chat = reader.chat
        self._tokenizer = reader.tokenizer
        self.context = context
        self._ends = end_ids(GenerationConfig.from_model_config(reader.config), reader.config, reader.tokenizer)
        if not self._ends:
            raise EngineError(f"checkpoint {name} has no token that ends an answer")
        self.pad = reader.tokenizer.pad_token_id if reader.tokenizer.pad_token_id is not None else min(self._ends)
        self.switch = rope_switch(reader.config.get_text_config(decoder=True))
        self._chat.answer("")

    def save(self, folder: str) -> None:
        """Write the tokenizer and its chat template beside a checkpoint's weights."""
        self._tokenizer.save_pretrained(folder)

    def encode(self, prompt: Prompt, answer: str) -> Turn:
        """Write a prompt and its answer; a long prompt loses words of user fields and captions, the answer none.

        Raises:
            PromptTooLong: they do not fit the context with every user field and caption empty.
        """
        reply = self._chat.answer(answer)
        alone = self._ids(reply)
        # Joined, the two may take a token more than apart.
        fitted = self._chat.fit(prompt, max(0, self.context - len(alone) - 2), image=False)
        asked = list(fitted.ids)
        joined = self._ids(self._chat.write(fitted.text, image=False) + reply)
        # What is generated follows the prompt's own tokens, so these must stand as they are.
        rest = joined[len(asked) :] if joined[: len(asked)] == asked else alone
        return Turn([*asked, *self._ended(rest)], len(asked), fitted.cut, fitted.captions_cut)

    @property
    def ends(self) -> list[int]:
        """Ids of the tokens that end an answer."""
        return sorted(self._ends)

    def ask(self, prompt: Prompt, new_tokens: int) -> Sequence[int]:
        """Write a prompt that leaves room for an answer of so many tokens.

        Raises:
            PromptTooLong: it does not fit the context with every user field and caption empty.
        """
        return self._chat.fit(prompt, max(0, self.context - new_tokens), image=False).ids

    def fit_of(self, prompt: Prompt, new_tokens: int) -> Fit:
        """Return what a prompt loses so that it leaves room for an answer of so many tokens."""
        return self._chat.fit_of(prompt, max(0, self.context - new_tokens))

    def read(self, tokens: Sequence[int]) -> str:
        """Return the text of an answer's tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _ended(self, ids: list[int]) -> list[int]:
        """Ids up to the first one that ends an answer; with one where there is none."""
        end = next((place for place, token in enumerate(ids) if token in self._ends), None)
        if end is not None:
            return ids[: end + 1]
        own = self._tokenizer.eos_token_id
        return [*ids, own if own is not None else min(self._ends)]


def read_config(spec: EngineSpec) -> Any:
    """Return the configuration of a checkpoint, as transformers reads it.

    Raises:
        EngineError: it cannot be read.
    """
    return read_settings(spec).config


class Trainable(NamedTuple):
    """A checkpoint in memory, and what writes its turns."""

    model: Any
    turns: Turns


def load_turns(spec: EngineSpec) -> Turns:
    """Load all of a checkpoint that is needed to write its turns, and no weights.

    Raises:
        EngineError: the checkpoint cannot be read, or cannot be trained.
    """
    return Turns(spec.checkpoint, read_settings(spec), spec.context)


def attention_for(spec: EngineSpec, device: torch.device, *, packing: bool) -> str:
    """Return the attention implementation to train with, as transformers names it.

    FlashAttention separates packed samples by their positions; SDPA needs a dense mask of tokens × tokens.
    """
    usable = device.type == "cuda" and spec.dtype in ("bfloat16", "float16") and is_flash_attn_2_available()
    return "flash_attention_2" if packing and usable else "sdpa"


def load_trainable(spec: EngineSpec, device: torch.device, *, attention: str = "sdpa", **settings: Any) -> Trainable:
    """Load a checkpoint to train it.

    Args:
        spec: the checkpoint; its adapters and its generation settings are left out.
        device: where its weights shall lie.
        attention: the attention implementation, as transformers names it.
        settings: more arguments of `from_pretrained`, such as `quantization_config`.

    Raises:
        EngineError: the checkpoint cannot be loaded, or cannot be trained.
    """
    reader = read_settings(spec)
    source = find_source(spec)
    auto: Any = AutoModelForCausalLM
    try:
        model, told = auto.from_pretrained(
            source.location,
            **source.where,
            config=reader.config,
            dtype=getattr(torch, spec.dtype),
            device_map={"": device},
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
            **settings,
        )
    except Exception as error:  # Each loader raises types of its own; the user needs the checkpoint's name.
        raise EngineError(f"checkpoint {spec.checkpoint} cannot be loaded: {type(error).__name__}: {error}") from error
    scaled = [name for name in _SCALED if getattr(reader.config.get_text_config(decoder=True), name, None) is not None]
    if scaled:
        raise EngineError(
            f"checkpoint {spec.checkpoint} changes its logits after the head ({', '.join(scaled)}), which its training"
            " here would leave out: choose a base of the Llama or Mistral kind"
        )
    if told["missing_keys"]:
        names = sorted(told["missing_keys"])
        raise EngineError(f"checkpoint {spec.checkpoint} lacks {len(names)} weights, the first is {names[0]}")
    return Trainable(model, Turns(spec.checkpoint, reader, spec.context))
