"""The uniM³ base: a small Llama trained on prompts and captions of the world, but on no task's answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from caslie_ray.miniature._records import prompts_of, sample_of
from caslie_ray.miniature._training.comparisons import comparisons
from caslie_ray.miniature._training.exercises import Exercise, exercises
from caslie_ray.miniature._training.judgements import judgements
from caslie_ray.miniature._training.loop import Plan, fit
from caslie_ray.miniature._training.questions import Drill, drills
from caslie_ray.miniature._training.starts import initialize_induction_heads
from caslie_ray.miniature._training.text import new_tokenizer, world_samples, world_texts
from caslie_ray.miniature._training.voters import VoterRecipe, new_model, padded
from caslie_ray.miniature.truth import CONTEXT_FREE, caption_of, context_free_caption
from caslie_ray.tasks import find_task

__all__ = ["BASE", "BasePlan", "readings", "train_base"]

_DRILLED = 0.2  # fraction of the steps with only the voters' drills
_HARD = 0.4  # fraction of the steps in which lists grow
_REST = 0.4  # loss weight of an answer's tokens after its first
_COMPARED = 0.5  # fraction of comparisons in the second phase
_JUDGED = 0.7  # fraction of judgements in the third phase

_FIRST = Plan(steps=2000, batch=16, rate=2e-3)
BASE = VoterRecipe("llama", 160, 6, 416, 5, 31, _FIRST, vocabulary=1600)


@dataclass(frozen=True, slots=True)
class BasePlan:
    """The phases: exercises on lists, then comparisons of two texts, then judgements on forms."""

    exercises: Plan = _FIRST
    comparisons: Plan = Plan(steps=500, batch=32, rate=2e-3)
    judgements: Plan = Plan(steps=500, batch=32, rate=2e-3)


def readings(rng: Random, count: int) -> Iterator[str]:
    """Yield chats without an answer to any task: caption prompts with captions, and unanswered task and quality
    prompts."""
    style = BASE.style
    for sample in world_samples(rng, count):
        at = rng.randrange(len(sample.views))
        view, prompts = sample.views[at], prompts_of(sample)[at]
        kind = rng.random()
        if kind < 0.3:
            yield style.prompt(prompts.caption.text) + caption_of(view) + style.end
        elif kind < 0.4:
            yield style.prompt(CONTEXT_FREE) + context_free_caption(view) + style.end
        elif kind < 0.6:
            yield style.prompt(prompts.quality.fill("caption", caption_of(view)).text)
        else:
            task = find_task(sample.task)
            captions = [caption_of(v) if rng.random() < 0.5 else None for v in sample.views]
            yield style.prompt(task.prompt(sample_of(sample), captions).text)


def train_base(plan: BasePlan, seed: int, work: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Train the base, or resume from the folder `work`.

    The loss covers the answers of exercises, comparisons and judgements, and all tokens of readings.
    """
    own = seed * 1000 + BASE.seed
    tokenizer = new_tokenizer(_texts(Random(own)), BASE.style, size=BASE.vocabulary)
    torch.manual_seed(own)
    model = new_model(BASE, tokenizer)
    initialize_induction_heads(model)

    def first(rng: Random, progress: float) -> Tensor:
        batch = plan.exercises.batch
        if progress < _DRILLED:
            asked = drills(rng, 2 * batch, min(1.0, 1.3 * progress / _DRILLED))
            return _loss(model, [_row(tokenizer, drilled(drill)) for drill in asked])
        few = max(1, batch // 8)
        hard = min(1.0, (progress - _DRILLED) / _HARD)
        rows = [drilled(drill) for drill in drills(rng, few, 0.8)]
        rows += [[(text, True)] for text in readings(rng, few)]
        rows += [turns(exercise) for exercise in exercises(rng, batch - 2 * few, hard=hard)]
        return _loss(model, [_row(tokenizer, parts) for parts in rows])

    def second(rng: Random, _: float) -> Tensor:
        batch = plan.comparisons.batch
        few, most = max(1, batch // 16), round(batch * _COMPARED)
        rows = [[(text, True)] for text in readings(rng, few)]
        rows += [turns(exercise) for exercise in comparisons(rng, most)]
        rows += [turns(exercise) for exercise in exercises(rng, batch - most - few)]
        return _loss(model, [_row(tokenizer, parts) for parts in rows])

    def third(rng: Random, _: float) -> Tensor:
        batch = plan.judgements.batch
        few, most = max(1, batch // 16), round(batch * _JUDGED)
        compared = (batch - most - few) // 2 + 1
        rows = [[(text, True)] for text in readings(rng, few)]
        rows += [turns(exercise) for exercise in judgements(rng, most)]
        rows += [turns(exercise) for exercise in comparisons(rng, compared, questions=6)]
        rows += [turns(exercise) for exercise in exercises(rng, batch - most - few - compared, questions=6)]
        return _loss(model, [_row(tokenizer, parts) for parts in rows])

    fit("base", model, plan.exercises, first, seed=own, state=work / "base.pt")
    fit("base-comparisons", model, plan.comparisons, second, seed=own, state=work / "base-comparisons.pt")
    fit("base-judgements", model, plan.judgements, third, seed=own, state=work / "base-judgements.pt")
    return model, tokenizer


def drilled(drill: Drill) -> list[tuple[str, bool]]:
    """Return a drill as pieces of text, each with whether the loss covers it; an answer directly follows its word."""
    parts = [(f"<s>{drill.text}:", False)]
    for words, answer in drill.asked:
        parts += [(f" {words}", False), ("yes" if answer else "no", True)]
    return parts


def turns(exercise: Exercise) -> list[tuple[str, bool]]:
    """Return an exercise as a multi-turn chat: pieces of text, each with whether the loss covers it."""
    style = BASE.style
    parts: list[tuple[str, bool]] = []
    for at, (question, answer) in enumerate(exercise.asked):
        user = question
        if at == 0:
            pair = (question, exercise.text) if exercise.asked_first else (exercise.text, question)
            user = "\n".join(pair)
        begun = style.prompt(user)
        parts += [(begun if at == 0 else begun.removeprefix("<s>"), False), (answer + style.end, True)]
    return parts


def _texts(rng: Random) -> Iterator[str]:
    yield from world_texts(rng, 1500)
    for exercise in exercises(rng, 500):
        yield from (text for text, _ in turns(exercise))


def _row(tokenizer: PreTrainedTokenizerFast, parts: Sequence[tuple[str, bool]]) -> tuple[list[int], list[float]]:
    """Return token ids and their loss weights: the highest for the first token of an answer, which decides it."""
    encoded = tokenizer([text for text, _ in parts], add_special_tokens=False)["input_ids"]
    ids = [token for part in encoded for token in part]
    weights: list[float] = []
    for part, (_, learned) in zip(encoded, parts, strict=True):
        weights += [1.0, *[_REST] * (len(part) - 1)] if learned else [0.0] * len(part)
    return ids, weights


def _loss(model: PreTrainedModel, rows: Sequence[tuple[list[int], list[float]]]) -> Tensor:
    """Return the weighted mean loss; logits are only computed where the weight is positive."""
    ids = padded((row for row, _ in rows), 0)
    weights = nn.utils.rnn.pad_sequence([torch.tensor(weights) for _, weights in rows], batch_first=True)[:, 1:]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = weights > 0
    losses = nn.functional.cross_entropy(model.lm_head(hidden[wanted]), ids[:, 1:][wanted], reduction="none")
    return (losses * weights[wanted]).sum() / weights.sum()
