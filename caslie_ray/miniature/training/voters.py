"""The voters: five small language models that judge whether a caption helps.

They differ by family and shape, by their tokenizers, and by what they were trained on (their own draws of
the world, tasks in their own proportions). No label is ever wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from caslie_ray.miniature.catalogue import CATEGORIES
from caslie_ray.miniature.records import prompts_of
from caslie_ray.miniature.samples import MAKERS, World
from caslie_ray.miniature.training.loop import Plan, fit
from caslie_ray.miniature.training.text import CONTEXT, STYLES, ChatStyle, new_tokenizer, world_texts
from caslie_ray.miniature.truth import ViewTruth, caption_of, context_free_caption, helps, phrase

__all__ = ["VOTERS", "Question", "VoterRecipe", "balanced_accuracy", "questions", "train_voter"]

_CLASSES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "phi": (Phi3Config, Phi3ForCausalLM),
}


@dataclass(frozen=True, slots=True)
class VoterRecipe:
    """One voter: its family, shape, and what it is trained on.

    `plans` are the phases of its training. `tasks` gives the tasks that it sees more or less often than the
    others (weight 1), `extra` the settings of its configuration that the other families do not have.
    """

    family: str
    width: int
    layers: int
    inner: int
    kv_heads: int
    seed: int
    plans: tuple[Plan, ...]
    vocabulary: int = 1024
    tasks: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def style(self) -> ChatStyle:
        """The family's chat style."""
        return STYLES[self.family]


# As many samples a minute either way: fewer and larger steps first, or more and smaller ones.
_LARGE = (Plan(steps=600, batch=32, rate=2e-3), Plan(steps=1400, batch=16, rate=1.5e-3))
_SMALL = (Plan(steps=900, batch=16, rate=1.5e-3), Plan(steps=600, batch=16, rate=1.2e-3))

# After the first phase: where two texts must be compared, more is left to learn.
_HARD = {"PRP": 2.0, "CC": 1.5, "PSI": 1.5, "MPC": 1.5, "SA": 0.6, "SR": 0.6}
_PHI = {"original_max_position_embeddings": CONTEXT}

VOTERS: dict[str, VoterRecipe] = {
    "llama-3b": VoterRecipe("llama", 96, 4, 256, 3, 11, _LARGE, tasks={"SR": 2.0, "SA": 0.7}),
    "llama-8b": VoterRecipe("llama", 128, 4, 256, 4, 12, _LARGE, tasks={"PRP": 2.0, "AP": 0.7}),
    "vision": VoterRecipe("llama", 128, 3, 320, 2, 13, _SMALL, tasks={"AP": 2.0, "CC": 0.7}),
    "mistral": VoterRecipe(
        "mistral", 128, 3, 288, 2, 14, _SMALL, tasks={"PSI": 2.0, "SR": 0.7}, extra={"sliding_window": None}
    ),
    "phi": VoterRecipe("phi", 96, 5, 256, 3, 15, _SMALL, tasks={"SA": 2.0, "MPC": 0.7}, extra=_PHI),
}


@dataclass(frozen=True, slots=True)
class Question:
    """A quality prompt with a caption in it, and whether the caption helps."""

    task: str
    text: str
    answer: bool


def _caption(rng: Random, view: ViewTruth, prompt: str) -> str:
    """A caption as the captioner writes it, or with one of its faults that a reader can notice."""
    shown = view.picture.shown
    if shown is None or rng.random() < 0.7:
        return caption_of(view)
    fault = rng.random()
    if fault < 0.4:
        others = [name for name in CATEGORIES if name not in prompt]
        return caption_of(view).replace(f" {shown.category}", f" {rng.choice(others)}")
    if fault < 0.6:
        return context_free_caption(view)
    manners = (
        "category",
        "colour",
        "both",
        "photo",
        *(f"question:{name}" for name in ("size", "brand", "weight")),
    )
    return phrase(shown, rng.choice(manners))


def questions(rng: Random, count: int, tasks: Mapping[str, float], *, seen_only: bool = True) -> list[Question]:
    """Questions of all tasks, about half of them with the answer yes."""
    world = World(rng, rng.choice(("tools", "sports", None)), seen_only=seen_only)
    names = tuple(MAKERS)
    weights = [tasks.get(name, 1.0) for name in names]
    found: list[Question] = []
    while len(found) < count:
        name = rng.choices(names, weights)[0]
        sample = MAKERS[name](world)
        at = rng.randrange(len(sample.views))
        prompt = prompts_of(sample)[at].quality
        caption = _caption(rng, sample.views[at], prompt.text)
        answer = helps(caption, sample.views[at])
        if answer or rng.random() < 0.5:
            found.append(Question(name, prompt.fill("caption", caption).text, answer))
    return found


def new_model(recipe: VoterRecipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """An untrained model of a recipe; heads are 32 wide, so that every engine has a kernel for them."""
    config_class, model_class = _CLASSES[recipe.family]
    end = tokenizer.eos_token_id
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": recipe.width, "intermediate_size": recipe.inner,
        "num_hidden_layers": recipe.layers, "num_attention_heads": recipe.width // 32,
        "num_key_value_heads": recipe.kv_heads, "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": end, **recipe.extra,
    }  # fmt: skip
    config = config_class.from_dict(settings)
    model = model_class(config)
    model.generation_config = GenerationConfig(
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
    )
    return model


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids (n, longest), padded on the right, and the lengths (n)."""
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), tokenizer.pad_token_id)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, lengths


def train_voter(
    name: str, recipe: VoterRecipe, plans: Sequence[Plan], seed: int, work: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Train a voter through the given phases, or go on with the one in the folder `work`.

    The loss is that of the one answer token, and a tenth of the language-model loss of the prompt, which
    teaches to look back for words that come again.
    """
    own = seed * 1000 + recipe.seed
    tokenizer = new_tokenizer(world_texts(Random(own), 1500), recipe.style, size=recipe.vocabulary)
    torch.manual_seed(own)
    model = new_model(recipe, tokenizer)
    answers = torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")])

    def loss_of(rng: Random, size: int, tasks: Mapping[str, float]) -> Tensor:
        batch = questions(rng, size, tasks)
        ids, lengths = encode(tokenizer, [recipe.style.prompt(question.text) for question in batch])
        logits = model(input_ids=ids, use_cache=False).logits
        last = logits[torch.arange(len(batch)), lengths - 1]
        wanted = answers[torch.tensor([int(question.answer) for question in batch])]
        following = ids[:, 1:].clone()
        following[ids[:, 1:] == tokenizer.pad_token_id] = -100
        language = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), following.flatten(), ignore_index=-100)
        return nn.functional.cross_entropy(last, wanted) + 0.1 * language

    for number, plan in enumerate(plans, 1):
        phase = f"voter-{name}-{number}"
        harder = _HARD if number > 1 else {}
        tasks = {code: recipe.tasks.get(code, 1.0) * harder.get(code, 1.0) for code in MAKERS}
        part = partial(loss_of, size=plan.batch, tasks=tasks)
        fit(phase, model, model.parameters(), plan, part, seed=own, state=work / f"{phase}.pt")
    return model, tokenizer


@torch.inference_mode()
def balanced_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, style: ChatStyle, asked: Sequence[Question]
) -> float:
    """Mean of the share of yes and of no questions that a voter answers rightly."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    no, yes = (tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
    for start in range(0, len(asked), 32):
        batch = asked[start : start + 32]
        ids, lengths = encode(tokenizer, [style.prompt(question.text) for question in batch])
        last = model(input_ids=ids, use_cache=False).logits[torch.arange(len(batch)), lengths - 1]
        for question, says_yes in zip(batch, (last[:, yes] > last[:, no]).tolist(), strict=True):
            hits[question.answer].append(says_yes == question.answer)
    return sum(sum(found) / max(1, len(found)) for found in hits.values()) / 2
