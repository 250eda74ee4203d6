"""Drawn samples as records of the released MMECInstruct format, and their prompts."""

import json
from collections.abc import Sequence

from caslie_ray.miniature._samples import DrawnSample
from caslie_ray.tasks import Sample, ViewPrompts, find_task

__all__ = ["prompts_of", "record_of", "sample_of"]


def record_of(sample: DrawnSample, split: str, images: Sequence[str], captions: Sequence[str]) -> dict[str, str]:
    """Return the record of a sample: `input`, `options`, `images` and `caption_info` are JSON strings, as released.

    `images` and `captions` have one entry per view, in order.
    """
    task = find_task(sample.task)
    return {
        "task": task.name,
        "split": split,
        "instruction": task.instruction,
        "input": json.dumps(sample.fields),
        "options": json.dumps(sample.options),
        "output": sample.output,
        "images": json.dumps(list(images)),
        "caption_info": json.dumps(list(captions)),
    }


def sample_of(sample: DrawnSample) -> Sample:
    """Return the sample as parsed by ingest, with images named by position."""
    record = record_of(sample, "train", [f"{i}.jpg" for i in range(len(sample.views))], [])
    return find_task(sample.task).parse(record)


def prompts_of(sample: DrawnSample) -> list[ViewPrompts]:
    """Return the caption and quality prompts of each view, from the tasks' templates."""
    return find_task(sample.task).view_prompts(sample_of(sample))
