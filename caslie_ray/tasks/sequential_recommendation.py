"""SR: which product will the user buy next? (paper B.7, A.5)"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from caslie_ray.prompts import Prompt, one_line, render
from caslie_ray.tasks._answer_reading import option_titles, strip_ordinal
from caslie_ray.tasks._cells import STRUCTURE
from caslie_ray.tasks._parsing import RowError, as_text, decoded, text_list
from caslie_ray.tasks._sample import Sample
from caslie_ray.tasks._task import Task, caption_line
from caslie_ray.tasks.metrics import recall_at_1

_HISTORY_KEYS = ("history", "purchase history", "purchase_history", "input")


def _ordinal(number: int) -> str:
    tail = number % 100
    suffix = "th" if 10 <= tail <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


class SequentialRecommendation(Task):
    """One view per product, the purchase history first and then the options.

    ``1st:`` and ``A:`` are stripped before a title enters a prompt, so that a product is the same view in any position.
    """

    broken_input = STRUCTURE

    def input_names(self) -> tuple[str, ...]:
        return _HISTORY_KEYS[:-1]

    def read_input(self, value: object) -> tuple[tuple[str, str], ...]:
        if isinstance(value, Mapping):
            nested = next((value[key] for key in _HISTORY_KEYS if key in value), None)
            items = text_list(decoded(nested)) if nested is not None else _marked(value)
        else:
            items = text_list(value)
        if not items:
            raise RowError("input is missing: give the purchase history as a JSON list of titles")
        titles = [strip_ordinal(item) for item in items]
        if not all(titles):
            raise RowError(f"product {titles.index('') + 1} of the purchase history has an empty title")
        return tuple((_ordinal(number), title) for number, title in enumerate(titles, 1))

    def image_count(self, pairs: Sequence[tuple[str, str]], options: Sequence[str]) -> int:
        return len(pairs) + len(options)

    def slots(self, sample: Sample) -> list[dict[str, str]]:
        titles = [title for _, title in sample.input] + option_titles(sample.options)
        return [{"title": title} for title in titles]

    def body(self, sample: Sample, captions: Sequence[str | None]) -> list[Prompt]:
        lines = [Prompt("purchase history:")]
        for (place, title), caption in zip(sample.input, captions[: len(sample.input)], strict=True):
            lines.append(render(f"{place}: {{{{title}}}}", title=title))
            lines += caption_line("information from its image", caption)
        return lines

    def option_lines(self, sample: Sample, captions: Sequence[str | None]) -> list[Prompt]:
        lines: list[Prompt] = []
        for option, caption in zip(sample.options, captions[len(sample.input) :], strict=True):
            lines.append(Prompt(one_line(option)))
            lines += caption_line("information from its image", caption)
        return lines


def _marked(value: Mapping[object, object]) -> list[str]:
    """Read a history written as ``{"1st": "title", …}``."""
    return [as_text(cell) for key, cell in value.items() if re.fullmatch(r"\d+(st|nd|rd|th)?", str(key).strip())]


TASK = SequentialRecommendation(
    name="sequential_recommendation",
    code="SR",
    instruction=(
        "Estimate the user’s intent based on the user’s purchase history, and predict the next product that"
        " the user is most likely to purchase from the given options."
    ),
    caption_template=(
        "Please generate an informative caption for the product in the image. Here is the product title:"
        " {{title}}. The caption should be helpful in predicting the next product the user is most likely to"
        " purchase by analyzing the user’s intent based on the user’s purchase history."
    ),
    quality_template=(
        "The task needs to recommend the next product that the user may be interested in based on the user’s"
        " purchase history. Here is the title of a product from purchase history: {{title}}, and the"
        " information extracted from the product image: {{caption}}. You need to determine if the information"
        " extracted from the image will be helpful for recommendation. Only output yes or no."
    ),
    inputs=(),
    metrics=recall_at_1(),
)
