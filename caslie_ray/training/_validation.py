"""The validation metric: the model answers validation samples, and its answers are scored like any others."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import distributed as dist

from caslie_ray.engines.cutting import PromptTooLong
from caslie_ray.engines.trainable import Turns
from caslie_ray.tasks import TASKS
from caslie_ray.training._errors import TrainingError, too_large
from caslie_ray.training._examples import Examples
from caslie_ray.training._token_limit import OutOfMemory, within_memory

__all__ = ["mean_primary"]


@torch.no_grad()
def mean_primary(
    model: Any, turns: Turns, examples: Examples, *, rows: int, new_tokens: int, rank: int = 0, world: int = 1
) -> float:
    """Return the mean of the tasks' primary metrics; samples are sharded over the workers.

    Args:
        model: a model with an adapter, on its device.
        turns: tokenizes its prompts.
        examples: at least one.
        rows: batch size; halved after out of memory.
        new_tokens: maximum tokens of an answer.
        rank: this worker's rank.
        world: number of workers; above 1 the process group must be initialized.

    Raises:
        TrainingError: a sample does not fit the memory alone.
    """
    training = model.training
    model.eval()
    # Sorted by length, to reduce padding.
    mine = sorted(range(rank, len(examples), world), key=lambda row: int(examples.characters[row]))
    answers: dict[int, str] = {}
    at = 0
    while at < len(mine):
        chunk = mine[at : at + rows]
        result = within_memory(functools.partial(_answer, model, turns, examples, chunk, new_tokens))
        if not isinstance(result, OutOfMemory):
            answers.update(result)
            at += len(chunk)
        elif len(chunk) > 1:
            rows = len(chunk) // 2
        else:
            tokens = len(turns.ask(examples.prompt(chunk[0]), new_tokens)) + new_tokens
            sample = examples.sample_id(chunk[0])
            raise TrainingError(f"validation: {too_large(sample, tokens, turns.context, result.reason)}")
    model.train(training)
    if world > 1:
        gathered: list[dict[int, str]] = [{} for _ in range(world)]
        dist.all_gather_object(gathered, answers)
        answers = {row: text for part in gathered for row, text in part.items()}
    return _measure(examples, answers)


def _answer(model: Any, turns: Turns, examples: Examples, rows: Sequence[int], new_tokens: int) -> dict[int, str]:
    asked: dict[int, Sequence[int]] = {}
    answers: dict[int, str] = {}
    for row in rows:
        try:
            asked[row] = turns.ask(examples.prompt(row), new_tokens)
        except PromptTooLong:
            answers[row] = ""
    if not asked:
        return answers
    width = max(map(len, asked.values()))
    device = next(model.parameters()).device
    ids = torch.full((len(asked), width), turns.pad)
    mask = torch.zeros_like(ids)
    for place, prompt in enumerate(asked.values()):
        ids[place, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[place, width - len(prompt) :] = 1
    written = model.generate(
        input_ids=ids.to(device), attention_mask=mask.to(device), max_new_tokens=new_tokens, do_sample=False,
        eos_token_id=turns.ends, pad_token_id=turns.pad, use_cache=True,
    )  # fmt: skip
    for row, tokens in zip(asked, written[:, width:].tolist(), strict=True):
        answers[row] = turns.read(tokens)
    return answers


def _measure(examples: Examples, answers: dict[int, str]) -> float:
    truth: dict[str, list[str]] = defaultdict(list)
    answered: dict[str, list[str]] = defaultdict(list)
    for row, text in sorted(answers.items()):
        task = TASKS[examples.task(row)]
        true = task.true_label(examples.response(row), examples.options(row))
        assert true is not None  # read_held_back leaves such samples out
        answer = task.read_answer(text, examples.options(row))
        label = task.label if task.labels else str
        truth[task.name].append(true)
        answered[task.name].append("" if answer is None else label(answer))
    return float(
        np.mean(
            [
                TASKS[name].metrics.score(truth[name], answered[name], TASKS[name].labels)[TASKS[name].metrics.primary]
                for name in truth
            ]
        )
    )
