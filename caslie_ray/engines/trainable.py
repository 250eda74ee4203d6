"""Loads a causal LM for training and tokenizes prompt/answer pairs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig
from transformers.utils.import_utils import is_flash_attn_2_available

from caslie_ray.engines._config_facts import end_ids, rope_switch
from caslie_ray.engines._device import free_memory, is_out_of_memory
from caslie_ray.engines._preprocessor import Preprocessor, read_config, read_preprocessor
from caslie_ray.engines._source import find_source
from caslie_ray.engines.cutting import Fit
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError
from caslie_ray.prompts import Prompt

__all__ = [
    "Trainable", "Turn", "Turns", "attention_for", "free_memory", "is_out_of_memory", "load_trainable", "load_turns",
    "model_without_weights", "quantized_to_4bit", "read_config",
]  # fmt: skip


# Training computes logits at answer positions only, without these final steps of the model.
_SCALED = ("final_logit_softcapping", "logits_scaling", "logit_scale")


class Turn(NamedTuple):
    """A prompt with its answer, as token ids.

    Attributes:
        ids: of prompt and answer.
        start: index of the answer's first token; the loss covers the answer only.
        cut: whether user fields of the prompt lost words.
        captions_cut: whether captions in the prompt lost words.
    """

    ids: Sequence[int]
    start: int
    cut: bool
    captions_cut: bool = False


class Turns:
    """Tokenizes prompts and answers for one checkpoint, the prompt exactly as the engines do.

    Args:
        name: the checkpoint, for messages.
        preprocessor: its tokenizer and chat template.
        context: tokens of prompt and answer together.

    Raises:
        EngineError: the checkpoint is not a text model, or its template cannot write an answer.
    """

    def __init__(self, name: str, preprocessor: Preprocessor, context: int) -> None:
        config, tokenizer, _, architecture, chat = preprocessor
        if architecture.takes_images or not architecture.has_chat_template:
            raise EngineError(f"checkpoint {name} is of the family {config.model_type!r}; uniM³ is a text model")
        self._chat = chat
        self._tokenizer = tokenizer
        self.context = context
        self._ends = end_ids(GenerationConfig.from_model_config(config), config, tokenizer)
        if not self._ends:
            raise EngineError(f"checkpoint {name} has no token that ends an answer")
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self._ends)
        self.switch = rope_switch(config.get_text_config(decoder=True))
        self._chat.render_answer("")

    def save(self, folder: str) -> None:
        """Save the tokenizer and its chat template in a checkpoint's folder."""
        self._tokenizer.save_pretrained(folder)

    def encode(self, prompt: Prompt, answer: str) -> Turn:
        """Tokenize a prompt and its answer; a long prompt is cut, the answer never.

        Raises:
            PromptTooLong: they do not fit the context even with every user field and caption empty.
        """
        reply = self._chat.render_answer(answer)
        alone = self._ids(reply)
        # Tokenized together, the two may take more tokens than apart.
        fitted = self._chat.fit(prompt, max(0, self.context - len(alone) - 2), image=False)
        prompt_ids = list(fitted.ids)
        joined = self._ids(self._chat.render(fitted.text, image=False) + reply)
        # In generation the answer follows the prompt's own tokens, so these must not change.
        rest = joined[len(prompt_ids) :] if joined[: len(prompt_ids)] == prompt_ids else alone
        return Turn([*prompt_ids, *self._ended(rest)], len(prompt_ids), fitted.cut, fitted.captions_cut)

    @property
    def ends(self) -> list[int]:
        """Ids of the tokens that end an answer."""
        return sorted(self._ends)

    def ask(self, prompt: Prompt, new_tokens: int) -> Sequence[int]:
        """Tokenize a prompt, leaving room for an answer of `new_tokens`.

        Raises:
            PromptTooLong: it does not fit the context even with every user field and caption empty.
        """
        return self._chat.fit(prompt, max(0, self.context - new_tokens), image=False).ids

    def fit_of(self, prompt: Prompt, new_tokens: int) -> Fit:
        """Return what a prompt loses to leave room for an answer of `new_tokens`."""
        return self._chat.fit_of(prompt, max(0, self.context - new_tokens))

    def read(self, tokens: Sequence[int]) -> str:
        """Decode an answer's tokens."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text.strip()

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _ended(self, ids: list[int]) -> list[int]:
        """Return the ids up to the first end token, which is appended if there is none."""
        end = next((place for place, token in enumerate(ids) if token in self._ends), None)
        if end is not None:
            return ids[: end + 1]
        own = self._tokenizer.eos_token_id
        return [*ids, own if own is not None else min(self._ends)]


def model_without_weights(spec: EngineSpec) -> Any:
    """Return a checkpoint's model on the meta device: its modules and shapes.

    Raises:
        EngineError: its configuration cannot be read.
    """
    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(read_config(spec))


def quantized_to_4bit() -> dict[str, Any]:
    """Return the arguments of `load_trainable` that quantize the weights to 4-bit NormalFloat (QLoRA).

    Raises:
        EngineError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise EngineError("training.quantize=4bit needs bitsandbytes: pip install 'caslie_ray[quantize]'")
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    return {"quantization_config": settings}


class Trainable(NamedTuple):
    """A checkpoint in memory, and its tokenization of turns."""

    model: Any
    turns: Turns


def load_turns(spec: EngineSpec) -> Turns:
    """Load what is needed to tokenize a checkpoint's turns, without weights.

    Raises:
        EngineError: the checkpoint cannot be read, or cannot be trained.
    """
    return Turns(spec.checkpoint, read_preprocessor(spec), spec.context)


def attention_for(spec: EngineSpec, device: torch.device, *, packing: bool) -> str:
    """Return the attention implementation to train with, as transformers names it.

    FlashAttention separates packed samples by their position ids; SDPA needs a dense tokens × tokens mask.
    """
    usable = device.type == "cuda" and spec.dtype in ("bfloat16", "float16") and is_flash_attn_2_available()
    return "flash_attention_2" if packing and usable else "sdpa"


def load_trainable(spec: EngineSpec, device: torch.device, *, attention: str = "sdpa", **settings: Any) -> Trainable:
    """Load a checkpoint for training.

    Args:
        spec: the checkpoint; its adapters and generation settings are ignored.
        device: where to put its weights.
        attention: the attention implementation, as transformers names it.
        settings: more arguments of `from_pretrained`, such as `quantization_config`.

    Raises:
        EngineError: the checkpoint cannot be loaded, or cannot be trained.
    """
    preprocessor = read_preprocessor(spec)
    source = find_source(spec)
    auto: Any = AutoModelForCausalLM
    try:
        model, info = auto.from_pretrained(
            source.location,
            **source.arguments,
            config=preprocessor.config,
            dtype=getattr(torch, spec.dtype),
            device_map={"": device},
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
            **settings,
        )
    except Exception as error:  # each loader raises types of its own; the user needs the checkpoint's name
        raise EngineError(f"checkpoint {spec.checkpoint} cannot be loaded: {type(error).__name__}: {error}") from error
    text = preprocessor.config.get_text_config(decoder=True)
    scaled = [name for name in _SCALED if getattr(text, name, None) is not None]
    if scaled:
        raise EngineError(
            f"checkpoint {spec.checkpoint} changes its logits after the head ({', '.join(scaled)}), which training"
            " here would not: choose a base of the Llama or Mistral family"
        )
    if info["missing_keys"]:
        names = sorted(info["missing_keys"])
        raise EngineError(f"checkpoint {spec.checkpoint} lacks {len(names)} weights, the first is {names[0]}")
    return Trainable(model, Turns(spec.checkpoint, preprocessor, spec.context))
