"""A sample and its captions become instructions, one per variant.

A caption follows the text of its own product; a caption that is not used changes nothing. The prompt is the user's
turn, without a chat template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from caslie_ray.fusion._variants import CHOOSE, Captioned, Choose
from caslie_ray.prompts import one_line
from caslie_ray.tasks import TASKS, Sample

__all__ = ["instructions_of", "sample_of"]


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row of `samples`, without its images."""
    return Sample(
        row["task"],
        row["split"],
        row["instruction"],
        tuple((pair["field"], pair["text"]) for pair in row["input"] or ()),
        tuple(row["options"] or ()),
        row["output"],
        (),
        tuple(row["captions"] or ()),
    )


def instructions_of(
    row: Mapping[str, Any], captions: Mapping[str, Captioned], choose: Mapping[str, Choose] = CHOOSE
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `instructions` of one sample, one per variant.

    Args:
        row: a row of `samples`.
        captions: what is known of each view, by its id; a view without a caption counts as not captioned.
        choose: what each variant shows, by its name.
    """
    task = TASKS[row["task"]]
    sample = sample_of(row)
    views = [captions.get(view_id) if view_id else None for view_id in row["view_ids"] or ()]
    for variant, chooses in choose.items():
        shown = [(chooses(view) or None) if view and view.caption else None for view in views]
        prompt = task.prompt(sample, shown)
        yield {
            "sample_id": row["sample_id"],
            "task": row["task"],
            "split": row["split"],
            "variant": variant,
            "prompt": prompt.text,
            "prompt_fields": [list(span) for span in prompt.fields],
            "response": one_line(row["output"]),
            "options": list(sample.options),
            "captions_used": sum(caption is not None for caption in shown),
            "prompt_captions": [list(span) for span in prompt.captions],
            "source_ids": row.get("source_ids"),
        }
