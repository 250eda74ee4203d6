"""The voters: seven small language models that judge whether a caption helps.

They correspond to the seven of the paper's Table A4; the first five are the paper's lineup. They differ in family and
shape, tokenizer, training data (different samples, with two underrepresented tasks each), and training steps. All
labels are correct. With 50 to 400 more steps, three of them reached 98 to 99% accuracy on new questions, which would
leave little to vote on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, cast

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
    Qwen2Config,
    Qwen2ForCausalLM,
)

from caslie_ray.miniature._training.loop import Plan, fit
from caslie_ray.miniature._training.questions import Drill, Question, drills, questions
from caslie_ray.miniature._training.text import CONTEXT, STYLES, ChatStyle, new_tokenizer, world_texts

__all__ = ["VOTERS", "VoterRecipe", "balanced_accuracy", "new_model", "padded", "train_voter"]

_CLASSES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "phi": (Phi3Config, Phi3ForCausalLM),
    "qwen": (Qwen2Config, Qwen2ForCausalLM),
}


@dataclass(frozen=True, slots=True)
class VoterRecipe:
    """One voter: its family, shape and training data.

    `tasks` are sampling weights of tasks (1 for others); `extra` are family-specific configuration settings.
    """

    family: str
    width: int
    layers: int
    inner: int
    kv_heads: int
    seed: int
    plan: Plan
    vocabulary: int = 1024
    tasks: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def style(self) -> ChatStyle:
        """The family's chat style."""
        return STYLES[self.family]


# Models differ in how soon they learn to compare texts, and so in steps.
_PLAN = Plan(steps=650, batch=32, rate=2e-3)
_DRILL = 0.3  # fraction of the steps with only drills
_DRILL_SHARE = 4  # later, one in this many rows is a drill

VOTERS: dict[str, VoterRecipe] = {
    "llama-3b": VoterRecipe("llama", 96, 4, 256, 3, 11, _PLAN, tasks={"CC": 0.1, "PSI": 0.1}),
    "llama-8b": VoterRecipe("llama", 128, 4, 256, 4, 12, replace(_PLAN, steps=500), tasks={"AP": 0.1, "SA": 0.1}),
    "vision": VoterRecipe("llama", 128, 3, 320, 2, 13, replace(_PLAN, steps=560), tasks={"PRP": 0.1, "SR": 0.1}),
    "mistral": VoterRecipe(
        "mistral", 128, 3, 288, 2, 14, replace(_PLAN, steps=500), tasks={"MPC": 0.1, "AP": 0.1},
        extra={"sliding_window": None},
    ),
    "phi": VoterRecipe(
        "phi", 96, 5, 256, 3, 15, replace(_PLAN, steps=450), tasks={"SR": 0.1, "CC": 0.1},
        extra={"original_max_position_embeddings": CONTEXT},
    ),
    "llama3": VoterRecipe("llama", 96, 3, 384, 3, 16, _PLAN, tasks={"PSI": 0.1, "SA": 0.1}),
    "qwen": VoterRecipe("qwen", 128, 3, 256, 4, 17, _PLAN, tasks={"PRP": 0.1, "MPC": 0.1}),
}  # fmt: skip


def new_model(recipe: VoterRecipe, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Build an untrained model; the head dim is 32, for which every engine has a kernel."""
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
    _tie_queries_to_keys(model, recipe)
    model.generation_config = GenerationConfig(
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=end,
    )
    return model


def encode(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return token ids (n, longest), padded on the right, and lengths (n)."""
    rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return padded(rows, cast(int, tokenizer.pad_token_id)), torch.tensor([len(row) for row in rows])


def padded(rows: Iterable[Sequence[int]], pad: int) -> Tensor:
    """Return token ids as one tensor (n, longest), padded on the right."""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)


@torch.no_grad()
def _tie_queries_to_keys(model: PreTrainedModel, recipe: VoterRecipe) -> None:
    """Initialize all heads with equal query and key matrices, so that a word attends to its earlier occurrences.

    After Trockman & Kolter 2023. Without this, no voter learned in reasonable time to compare two words.
    """
    for layer in model.model.layers:
        attention = layer.self_attn
        keys = torch.randn(32 * recipe.kv_heads, recipe.width) * 0.1
        queries = keys.view(recipe.kv_heads, 32, -1)
        queries = queries.repeat_interleave(recipe.width // 32 // recipe.kv_heads, 0).flatten(0, 1)
        if hasattr(attention, "qkv_proj"):
            attention.qkv_proj.weight[: len(queries)] = queries
            attention.qkv_proj.weight[len(queries) : len(queries) + len(keys)] = keys
        else:
            attention.q_proj.weight.copy_(queries)
            attention.k_proj.weight.copy_(keys)


class _Row(NamedTuple):
    """Token ids, and the positions followed by an answer."""

    ids: list[int]
    answers: list[tuple[int, bool]]


def _question_rows(tokenizer: PreTrainedTokenizerFast, style: ChatStyle, asked: Sequence[Question]) -> list[_Row]:
    rows = tokenizer([style.prompt(question.text) for question in asked], add_special_tokens=False)["input_ids"]
    return [_Row(ids, [(len(ids) - 1, question.answer)]) for ids, question in zip(rows, asked, strict=True)]


def _drill_rows(tokenizer: PreTrainedTokenizerFast, asked: Iterable[Drill], words: Sequence[int]) -> list[_Row]:
    rows = []
    for drill in asked:
        texts = [f"<s>{drill.text}:", *(f" {text}" for text, _ in drill.asked)]
        head, *parts = tokenizer(texts, add_special_tokens=False)["input_ids"]
        row = _Row(list(head), [])
        for part, (_, answer) in zip(parts, drill.asked, strict=True):
            row.ids.extend(part)
            row.answers.append((len(row.ids) - 1, answer))
            row.ids.append(words[answer])
        rows.append(row)
    return rows


def _answer_loss(model: PreTrainedModel, rows: Sequence[_Row], words: Tensor, pad: int) -> Tensor:
    hidden = model.model(input_ids=padded((row.ids for row in rows), pad), use_cache=False).last_hidden_state
    places = [(i, at, answer) for i, row in enumerate(rows) for at, answer in row.answers]
    which, at, answers = (torch.tensor(column) for column in zip(*places, strict=True))
    return nn.functional.cross_entropy(model.lm_head(hidden[which, at]), words[answers.long()])


def train_voter(
    name: str, recipe: VoterRecipe, plan: Plan, seed: int, work: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Train a voter, or resume from the folder `work`; the loss covers only the answers.

    Training starts with drills only, first on words, then on captions; later most rows are questions.
    """
    own = seed * 1000 + recipe.seed
    tokenizer = new_tokenizer(world_texts(Random(own), 1500), recipe.style, size=recipe.vocabulary)
    torch.manual_seed(own)
    model = new_model(recipe, tokenizer)
    words = [cast(int, tokenizer.convert_tokens_to_ids(word)) for word in ("no", "yes")]

    def loss_of(rng: Random, progress: float) -> Tensor:
        def loss(rows: Sequence[_Row]) -> Tensor:
            return _answer_loss(model, rows, torch.tensor(words), cast(int, tokenizer.pad_token_id))

        if progress < _DRILL:
            captions = min(1.0, 1.3 * progress / _DRILL)
            return loss(_drill_rows(tokenizer, drills(rng, plan.batch, captions), words))
        few = max(1, plan.batch // _DRILL_SHARE)
        asked = questions(rng, plan.batch - few, recipe.tasks)
        drill = loss(_drill_rows(tokenizer, drills(rng, few, 0.8), words))
        return 0.5 * drill + loss(_question_rows(tokenizer, recipe.style, asked))

    fit(f"voter-{name}", model, plan, loss_of, seed=own, state=work / f"voter-{name}.pt")
    return model, tokenizer


@torch.inference_mode()
def balanced_accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, style: ChatStyle, asked: Sequence[Question]
) -> float:
    """Return the mean of the accuracies on yes questions and on no questions."""
    hits: dict[bool, list[bool]] = {True: [], False: []}
    no, yes = (tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes"))
    for start in range(0, len(asked), 32):
        batch = asked[start : start + 32]
        ids, lengths = encode(tokenizer, [style.prompt(question.text) for question in batch])
        last = model(input_ids=ids, use_cache=False).logits[torch.arange(len(batch)), lengths - 1]
        for question, says_yes in zip(batch, (last[:, yes] > last[:, no]).tolist(), strict=True):
            hits[question.answer].append(says_yes == question.answer)
    return sum(sum(found) / max(1, len(found)) for found in hits.values()) / 2
