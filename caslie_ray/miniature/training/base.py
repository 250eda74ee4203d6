"""The uniM³ base: a small Llama that has read the world's prompts and captions, and no task's answers."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from caslie_ray.miniature.records import prompts_of, sample_of
from caslie_ray.miniature.training.loop import Plan, fit
from caslie_ray.miniature.training.text import new_tokenizer, world_samples, world_texts
from caslie_ray.miniature.training.voters import VoterRecipe, encode, new_model
from caslie_ray.miniature.truth import CONTEXT_FREE, caption_of, context_free_caption
from caslie_ray.tasks import find_task

__all__ = ["BASE", "readings", "train_base"]

_PLAN = Plan(steps=500, batch=16, rate=2e-3)
BASE = VoterRecipe("llama", 160, 4, 416, 5, 31, _PLAN)


def readings(rng: Random, count: int) -> Iterator[str]:
    """Chats of the world without an answer to any task: captions asked for and given (of a product that is
    described in words), task turns and quality prompts left unanswered."""
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


def train_base(plan: Plan, seed: int, work: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Train the base, or go on with the one in the folder `work`."""
    own = seed * 1000 + BASE.seed
    tokenizer = new_tokenizer(world_texts(Random(own), 1500), BASE.style, size=BASE.vocabulary)
    torch.manual_seed(own)
    model = new_model(BASE, tokenizer)

    def loss_of(rng: Random, progress: float) -> Tensor:
        ids, _ = encode(tokenizer, list(readings(rng, plan.batch)))
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        following = ids[:, 1:].clone()
        following[following == tokenizer.pad_token_id] = -100
        return nn.functional.cross_entropy(logits.flatten(0, 1), following.flatten(), ignore_index=-100)

    fit("base", model, plan, loss_of, seed=own, state=work / "base.pt")
    return model, tokenizer
