"""Random checkpoints of a few kilobytes, of every family in the paper's lineup, saved as a real one is."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    MistralConfig,
    MistralForCausalLM,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaProcessor,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

TEXT = ("llama", "mistral", "phi3")
IMAGE = ("mllama", "llava", "llava_next", "blip2", "idefics3")
POSITIONS = 1024

_CORPUS = [
    "Please generate an informative caption for the product in the image.",
    "Does the caption help to tell the category? Only output yes or no. Yes No YES NO also buy also view",
    "The image shows a red mug with a striped surface, which belongs to the kitchen category.",
    "Lorem ipsum dolor sit amet, 0 1 2 3 4 5 6 7 8 9 ! ? ; : ' & user assistant User Assistant",
]
_TURNS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_PARTS = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|end|>"]
_TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_VISION_CONFIG: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}


def tokenizer(*special: str, template: str | None = _TURNS) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on a few sentences."""
    names = [*_SPECIAL, *special]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(_CORPUS * 4, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=names[4:],
    )
    made.chat_template = template
    return made


def token_id(words: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token."""
    found = words.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def image(width: int = 40, height: int = 30, colour: str = "red", kind: str = "PNG") -> bytes:
    """An encoded image of two colours."""
    picture = Image.new("RGB", (width, height), colour)
    picture.paste("white", (0, 0, width // 2, height // 3))
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def build(name: str, folder: Path) -> Path:
    """Save the random checkpoint of that name in `folder`, the same one each time."""
    torch.manual_seed(0)
    model, *others = _BUILDERS[name]()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2)  # far from the usual start near 0, so that inputs matter
            if "gate" in key and parameter.numel() == 1:
                parameter.fill_(1.0)  # Mllama starts with its image gates closed
    model.save_pretrained(folder)
    for other in others:
        other.save_pretrained(folder)
    return folder


def _llama() -> tuple[Any, ...]:
    words = tokenizer()
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **_TEXT_CONFIG)), words


def _mistral() -> tuple[Any, ...]:
    words = tokenizer()
    return MistralForCausalLM(MistralConfig(vocab_size=len(words), sliding_window=16, **_TEXT_CONFIG)), words


def _phi3() -> tuple[Any, ...]:
    words = tokenizer()
    turned = _TEXT_CONFIG["hidden_size"] // _TEXT_CONFIG["num_attention_heads"] // 2
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * turned,
        "long_factor": [4.0] * turned,
        "original_max_position_embeddings": 128,
    }
    settings = {**_TEXT_CONFIG, "original_max_position_embeddings": 128, "rope_parameters": rope}
    return Phi3ForCausalLM(Phi3Config(vocab_size=len(words), **settings)), words


def _llava() -> tuple[Any, ...]:
    words = tokenizer("<image>")
    config = LlavaConfig(
        text_config={"model_type": "llama", "vocab_size": len(words), **_TEXT_CONFIG},
        vision_config={"model_type": "clip_vision_model", **_VISION_CONFIG},
        image_token_index=token_id(words, "<image>"),
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        pictures,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_PARTS.replace("IMAGE", "<image>"),
    )
    return LlavaForConditionalGeneration(config), processor


def _llava_next() -> tuple[Any, ...]:
    words = tokenizer("<image>")
    grid = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        text_config={"model_type": "mistral", "vocab_size": len(words), **_TEXT_CONFIG},
        vision_config={"model_type": "clip_vision_model", **_VISION_CONFIG},
        image_token_index=token_id(words, "<image>"),
        image_grid_pinpoints=grid,
    )
    pictures = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        pictures,
        words,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_PARTS.replace("IMAGE", "<image>"),
    )
    return LlavaNextForConditionalGeneration(config), processor


def _idefics3() -> tuple[Any, ...]:
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    words = tokenizer("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tiles)
    config = Idefics3Config(
        image_token_id=token_id(words, "<image>"),
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        vision_config=_VISION_CONFIG,
        text_config={
            "model_type": "llama",
            "vocab_size": len(words),
            "tie_word_embeddings": False,
            **_TEXT_CONFIG,
        },
    )
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    template = _PARTS.replace("IMAGE", "<image>")
    processor = Idefics3Processor(pictures, words, image_seq_len=1, chat_template=template)
    return Idefics3ForConditionalGeneration(config), processor


def _mllama() -> tuple[Any, ...]:
    words = tokenizer("<|image|>", "<|python_tag|>")
    config = MllamaConfig(
        text_config={
            "vocab_size": len(words),
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            **(_TEXT_CONFIG | {"num_hidden_layers": 3}),
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 4,
            "image_size": 28,
            "patch_size": 14,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 64,
            "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        },
        image_token_index=token_id(words, "<|image|>"),
    )
    pictures = MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=4)
    template = "{{ bos_token }}" + _PARTS.replace("IMAGE", "<|image|>")
    return MllamaForConditionalGeneration(config), MllamaProcessor(pictures, words, chat_template=template)


def _blip2() -> tuple[Any, ...]:
    words = tokenizer("<image>", template=None)
    opt = {
        "model_type": "opt",
        "vocab_size": len(words),
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    qformer = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "cross_attention_frequency": 1,
        "encoder_hidden_size": 32,
    }
    config = Blip2Config(
        vision_config=_VISION_CONFIG,
        qformer_config=qformer,
        text_config=opt,
        num_query_tokens=4,
        image_token_index=token_id(words, "<image>"),
    )
    pictures = BlipImageProcessorPil(size={"height": 28, "width": 28})
    return Blip2ForConditionalGeneration(config), Blip2Processor(pictures, words, num_query_tokens=4)


_BUILDERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "phi3": _phi3,
    "mllama": _mllama,
    "llava": _llava,
    "llava_next": _llava_next,
    "blip2": _blip2,
    "idefics3": _idefics3,
}
