"""The captioner: an Idefics3 (SigLIP vision tower and Llama), trained on the caption prompts of all tasks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from caslie_ray.miniature._records import prompts_of
from caslie_ray.miniature._samples import MAKERS, World
from caslie_ray.miniature._training.loop import Plan, fit
from caslie_ray.miniature._training.pixels import TILE, pixels_of
from caslie_ray.miniature._training.text import CONTEXT, ChatStyle, new_tokenizer, world_texts
from caslie_ray.miniature._training.tower import TOWER, Tower, train_tower, vision_config
from caslie_ray.miniature.catalogue import Combinations
from caslie_ray.miniature.drawing import draw_picture, encode
from caslie_ray.miniature.truth import CONTEXT_FREE, ViewTruth, caption_of, context_free_caption

__all__ = ["CaptionerPlan", "Example", "captions_by", "examples", "train_captioner"]

_END = "<end_of_utterance>"
_WORDS = Plan(steps=1100, batch=24, rate=2e-3)
_WHOLE = Plan(steps=600, batch=16, rate=5e-4)
# Sampling weights: AP has seven kinds of questions, the other tasks have one.
_TASKS = {code: 3.0 if code == "AP" else 1.0 for code in MAKERS}
_SCALE = 4  # 8 x 8 patches of a tile become 2 x 2 tokens
_TOKENS = (TILE // 8 // _SCALE) ** 2
_STYLE = ChatStyle(
    user="<|im_start|>User:",
    close=f"{_END}\n",
    assistant="Assistant:",
    end=_END,
    specials=("<|im_start|>", _END),
)
_SPECIALS = (
    "<fake_token_around_image>", "<image>", "<global-img>",
    *(f"<row_{i}_col_{j}>" for i in (1, 2) for j in (1, 2)),
)  # fmt: skip
_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] | capitalize }}"
    "{% if m['content'] is string %}{{ ': ' + m['content'] }}{% else %}"
    "{{ ':' if m['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in m['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endif %}{{ '<end_of_utterance>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class CaptionerPlan:
    """The phases: the tower alone, then the language model with a frozen tower, then both."""

    tower: Plan = TOWER
    words: Plan = _WORDS
    whole: Plan = _WHOLE


@dataclass(frozen=True, slots=True)
class Example:
    """An encoded image, a caption prompt, the target caption, and the ground truth."""

    image: bytes
    prompt: str
    caption: str
    view: ViewTruth


def examples(rng: Random, count: int, *, combinations: Combinations = "seen", free: float = 0.08) -> list[Example]:
    """Draw examples of all tasks; a fraction `free` of them has the context-free prompt."""
    world = World(rng, rng.choice(("tools", "sports", None)), combinations=combinations)
    found = []
    for _ in range(count):
        sample = MAKERS[rng.choices(tuple(_TASKS), tuple(_TASKS.values()))[0]](world)
        at = rng.randrange(len(sample.views))
        view = sample.views[at]
        image = encode(draw_picture(view.picture))
        if rng.random() < free:
            found.append(Example(image, CONTEXT_FREE, context_free_caption(view), view))
        else:
            found.append(Example(image, prompts_of(sample)[at].caption.text, caption_of(view), view))
    return found


def new_processor(seed: int, vocabulary: int = 1024) -> Idefics3Processor:
    """Build a processor that always splits an image into four tiles and a thumbnail: a single tile fails in vLLM."""
    tokenizer = new_tokenizer(world_texts(Random(seed), 1500), _STYLE, size=vocabulary, specials=_SPECIALS)
    tokenizer.chat_template = _TEMPLATE
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 2 * TILE},
        max_image_size={"longest_edge": TILE},
        do_image_splitting=True,
        resample=1,
    )
    return Idefics3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_len=_TOKENS, chat_template=_TEMPLATE
    )


def new_model(
    tokenizer: PreTrainedTokenizerFast, *, width: int = 160, layers: int = 4
) -> Idefics3ForConditionalGeneration:
    """Build an untrained captioner. Both levels of its configuration state that the head is not tied."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
           "eos_token_id": tokenizer.convert_tokens_to_ids(_END)}  # fmt: skip
    config = Idefics3Config(
        image_token_id=cast(int, tokenizer.convert_tokens_to_ids("<image>")),
        scale_factor=_SCALE,
        tie_word_embeddings=False,
        vision_config=vision_config().to_dict(),
        text_config={
            "model_type": "llama", "hidden_size": width, "intermediate_size": width * 8 // 3 // 16 * 16,
            "num_hidden_layers": layers, "num_attention_heads": width // 32,
            "num_key_value_heads": width // 32, "head_dim": 32, "vocab_size": len(tokenizer),
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": False, **ids,
        },
        **ids,
    )  # fmt: skip
    model = Idefics3ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(do_sample=False, **ids)
    return model


def _image_text() -> str:
    """Return the processor's expansion of `<image>`."""
    token = "<image>" * _TOKENS
    rows = "".join("".join(f"<fake_token_around_image><row_{i}_col_{j}>{token}" for j in (1, 2)) + "\n" for i in (1, 2))
    return f"{rows}\n<fake_token_around_image><global-img>{token}<fake_token_around_image>"


def prompt_text(prompt: str) -> str:
    """Return a caption prompt with its image, as rendered by chat template and processor."""
    return f"<|im_start|>User:{_image_text()}{prompt}{_END}\nAssistant:"


def _loss(
    model: Idefics3ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    batch: Sequence[Example],
    *,
    frozen: bool,
) -> Tensor:
    prompts = tokenizer([prompt_text(e.prompt) for e in batch], add_special_tokens=False)["input_ids"]
    captions = tokenizer([f" {e.caption}{_END}" for e in batch], add_special_tokens=False)["input_ids"]
    longest = max(len(p) + len(c) for p, c in zip(prompts, captions, strict=True))
    ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
    labels = torch.full((len(batch), longest), -100)
    for i, (prompt, caption) in enumerate(zip(prompts, captions, strict=True)):
        end = len(prompt) + len(caption)
        ids[i, :end] = torch.tensor(prompt + caption)
        labels[i, len(prompt) - 1 : end - 1] = torch.tensor(caption)
    pixels = torch.from_numpy(np.stack([pixels_of(e.image) for e in batch]))
    inner = model.model
    with torch.set_grad_enabled(not frozen):
        patches = inner.vision_model(pixel_values=pixels.flatten(0, 1)).last_hidden_state
    embedded = inner.text_model.get_input_embeddings()(ids)
    embedded = inner.inputs_merger(ids, embedded, inner.connector(patches))
    hidden = inner.text_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    wanted = labels != -100
    return nn.functional.cross_entropy(model.lm_head(hidden[wanted]), labels[wanted])


def train_captioner(
    plan: CaptionerPlan, seed: int, work: Path, *, width: int = 160, layers: int = 4
) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """Train tower and captioner, or resume from the folder `work`."""
    tower: Tower = train_tower(plan.tower, seed, work)
    processor = new_processor(seed)
    tokenizer = processor.tokenizer
    torch.manual_seed(seed + 1)
    model = new_model(tokenizer, width=width, layers=layers)
    model.model.vision_model.load_state_dict(tower.vision.state_dict())
    for name, phase, frozen in (
        ("captioner-words", plan.words, "vision_model"),
        ("captioner-whole", plan.whole, None),
    ):

        def loss_of(rng: Random, _: float, phase: Plan = phase, frozen: str | None = frozen) -> Tensor:
            return _loss(model, tokenizer, examples(rng, phase.batch), frozen=frozen is not None)

        fit(name, model, phase, loss_of, seed=seed, state=work / f"{name}.pt", frozen=frozen)
    return model, processor


@torch.inference_mode()
def captions_by(
    model: Idefics3ForConditionalGeneration, processor: Idefics3Processor, batch: Sequence[Example]
) -> list[str]:
    """Generate captions with plain transformers."""
    turns: list[Any] = [
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": e.prompt}]}] for e in batch
    ]
    texts = [processor.apply_chat_template(turn, add_generation_prompt=True) for turn in turns]
    images = [[Image.open(BytesIO(e.image))] for e in batch]
    inputs = processor(images=images, text=texts, return_tensors="pt", padding=True, padding_side="left")
    generate: Callable[..., Tensor] = cast(Any, model).generate  # transformers annotates its `self` as a protocol
    output = generate(**inputs, max_new_tokens=24, do_sample=False)
    new = output[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]
