"""Fine-tuning against a plain PyTorch and PEFT loop: tokens per second."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from caslie_ray.benchmark._caption_job import JobResult
from caslie_ray.benchmark._processes import fresh_processes
from caslie_ray.benchmark._timing import Timing
from caslie_ray.benchmark._views import VARIANT
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.prompts import Prompt, read_spans
from caslie_ray.storage.run import open_run

__all__ = ["SETTINGS", "PlainTraining", "plain_timing", "run_plain_loop", "train_timing", "training_tokens"]

SETTINGS = (
    f"training.variants=[{VARIANT}]", "training.epochs=1", "training.validations=1",
    "training.checkpoint_steps=1000000", "training.merge=false", "training.trackers=[]", "training.patience=null",
    "training.lora.dropout=0.0", "experiments.shuffled=false", "experiments.verdict_only=false",
    "experiments.task_specific=false", "experiments.context_free=false", "experiments.voter_sets=[]",
)  # fmt: skip
"""One model, one epoch, without checkpoints or validation, which the plain loop does not have."""


@dataclass(frozen=True)
class PlainTraining:
    """Measurements of the plain loop.

    Attributes:
        tokens: tokens processed, without padding.
        seconds: all steps, and saving the adapter.
        start_s: seconds before the first step: imports, loading.
        steps: optimizer steps.
        peak_mib: peak memory of the process.
    """

    tokens: int
    seconds: float
    start_s: float
    steps: int
    peak_mib: float


def run_plain_loop(profile: str, examples: str, threads: int) -> PlainTraining:
    """Train one epoch in a subprocess: on one GPU, or on all cores.

    Args:
        profile: path of the profile.
        examples: URI of the run with the instructions.
        threads: PyTorch threads.

    Raises:
        EngineError: the base cannot be loaded.
    """
    with fresh_processes(1) as pool:
        return pool.submit(_train, profile, examples, threads, time.time()).result()


def _turns(profile: Profile, examples: str) -> tuple[Any, list[Any]]:
    from caslie_ray.engines.cutting import PromptTooLong
    from caslie_ray.engines.trainable import load_turns

    turns = load_turns(profile.lineup.base.spec())
    run = open_run(examples)
    rows = [row for path in run.files("instructions") for row in run.read_file(path).to_pylist()]
    rows.sort(key=lambda row: str(row["sample_id"]))
    encoded = []
    for row in rows:
        prompt = Prompt(row["prompt"], read_spans(row["prompt_fields"]), read_spans(row["prompt_captions"]))
        with suppress(PromptTooLong):  # the job skips such samples too
            encoded.append(turns.encode(prompt, row["response"]))
    return turns, encoded


def _train(path: str, examples: str, threads: int, started: float) -> PlainTraining:
    import resource
    import warnings

    import torch
    from peft import LoraConfig, get_peft_model

    from caslie_ray.engines.baseline import plain_causal_model

    torch.set_num_threads(threads)
    profile = load_profile(path, SETTINGS)
    settings, base = profile.training, profile.lineup.base
    turns, encoded = _turns(profile, examples)
    spec = base.spec()
    if settings.resources.gpus <= 0:
        spec = replace(spec, device="cpu", gpus=0.0)
    model: Any = plain_causal_model(spec, settings.dtype or base.dtype)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    lora = settings.lora
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")  # the adapter is not merged
    model = get_peft_model(model, config)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    device = trained[0].device
    begin = time.time()
    order = np.random.default_rng(settings.seed).permutation(len(encoded))
    steps = 0
    for at in range(0, len(order), settings.global_batch):
        batch = order[at : at + settings.global_batch]
        parts = [batch[start : start + settings.micro_batch] for start in range(0, len(batch), settings.micro_batch)]
        for part in parts:
            chosen = [encoded[int(number)] for number in part]
            width = max(len(turn.ids) for turn in chosen)
            ids = torch.full((len(chosen), width), turns.pad)
            mask = torch.zeros_like(ids)
            labels = torch.full_like(ids, -100)
            for row, turn in enumerate(chosen):
                length = len(turn.ids)
                ids[row, :length] = torch.tensor(turn.ids)
                mask[row, :length] = 1
                labels[row, turn.start : length] = ids[row, turn.start : length]
            inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}
            (model(**inputs).loss / len(parts)).backward()
        torch.nn.utils.clip_grad_norm_(trained, settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(os.path.join(folder, "adapter"), save_embedding_layers=False)
    seconds = time.time() - begin
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return PlainTraining(sum(len(turn.ids) for turn in encoded), seconds, begin - started, steps, peak_mib)


def plain_timing(result: PlainTraining) -> Timing:
    """Return the timing of the plain loop."""
    details = {"memory_mib": {"processes": round(result.peak_mib, 1)}, "steps": result.steps}
    rate = result.tokens / result.seconds if result.seconds else None
    return Timing(result.tokens, rate, result.start_s + result.seconds, None, result.start_s, details=details)


def train_timing(result: JobResult, tokens: int, summary: dict[str, Any]) -> Timing:
    """Return the timing of a train job.

    Args:
        result: its measurements.
        tokens: total tokens of its instructions.
        summary: the job's summary.
    """
    if result.failure:
        return Timing(tokens, None, 0.0, reason=result.failure)
    seconds = sum(model["seconds"] for model in summary["models"])
    total = result.end - result.begin
    details = {
        "memory_mib": dict(result.memory_mib),
        "steps": sum(model["steps"] for model in summary["models"]),
        "resources": dict(result.resources),
    }
    return Timing(tokens, tokens / seconds if seconds else None, total, None, total - seconds, details=details)


def training_tokens(profile: str, examples: str) -> int:
    """Return the total number of tokens of a run's instructions."""
    _, encoded = _turns(load_profile(profile), examples)
    return sum(len(turn.ids) for turn in encoded)
