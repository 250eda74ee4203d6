"""Questions of the API as samples of a task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple, TypeVar

from caslie_ray.captioning import View
from caslie_ray.captioning.online import make_view
from caslie_ray.dataset.online import StoredImage
from caslie_ray.hashing import content_id
from caslie_ray.serving._problems import ApiError
from caslie_ray.serving._schemas import Question
from caslie_ray.tasks import OptionsError, RowError, Sample, Task, ViewPrompts, find_task

__all__ = ["Asked", "captioned_views_of", "parse_question", "views_of"]

_Given = TypeVar("_Given")


class Asked(NamedTuple):
    """A parsed question.

    Attributes:
        task: its task.
        sample: its texts and options, without images and without the true answer.
        products: number of products, each of which may have an image.
    """

    task: Task
    sample: Sample
    products: int


def parse_question(question: Question, instruction: str | None = None) -> Asked:
    """Return a question as a sample.

    Raises:
        ApiError: the task is unknown, or a text or the options are missing.
    """
    try:
        task = find_task(question.task)
    except RowError as error:
        raise ApiError(422, str(error), field="task") from None
    record = {"input": dict(question.fields), "options": question.options, "instruction": instruction}
    try:
        sample = task.parse_question(record)
    except OptionsError as error:
        raise ApiError(422, str(error), field="options") from None
    except RowError as error:
        raise ApiError(422, str(error), field="fields") from None
    return Asked(task, sample, task.image_count(sample.input, sample.options))


def views_of(asked: Asked, images: Sequence[StoredImage | None]) -> list[View | None]:
    """Return the views of a question, one per product; None for a product without an image.

    Raises:
        ApiError: there are more images than products.
    """
    return [
        make_view(content_id(image.data), asked.task.name, prompts) if image is not None else None
        for image, prompts in _by_product(asked, images, "images")
    ]


def captioned_views_of(asked: Asked, captions: Sequence[str | None]) -> list[View | None]:
    """Return the views of given captions, one per product; None for a product without a caption.

    Raises:
        ApiError: there are more captions than products.
    """
    return [
        make_view("", asked.task.name, prompts, caption) if caption is not None else None
        for caption, prompts in _by_product(asked, captions, "captions")
    ]


def _by_product(
    asked: Asked, given: Sequence[_Given | None], field: str
) -> Iterator[tuple[_Given | None, ViewPrompts]]:
    """Yield what is given for each product, None for those at the end without, and the prompts of its view."""
    if len(given) > asked.products:
        raise ApiError(
            422, f"there are {len(given)} {field} for {asked.products} products of this question", field=field
        )
    return zip_longest(given, asked.task.view_prompts(asked.sample))
