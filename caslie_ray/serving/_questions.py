"""Questions of the API as samples of a task."""

from __future__ import annotations

from typing import NamedTuple

from caslie_ray.captioning import View
from caslie_ray.captioning.online import make_view
from caslie_ray.dataset.online import StoredImage
from caslie_ray.hashing import content_id
from caslie_ray.serving._problems import ApiError
from caslie_ray.serving._schemas import Question
from caslie_ray.tasks import RowError, Sample, Task, find_task

__all__ = ["Asked", "captioned_views_of", "parse_question", "views_of"]


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
    except RowError as error:
        field = "options" if "option" in str(error) and "input" not in str(error) else "fields"
        raise ApiError(422, str(error), field=field) from None
    return Asked(task, sample, task.image_count(sample.input, sample.options))


def views_of(asked: Asked, images: list[StoredImage | None]) -> list[View | None]:
    """Return the views of a question, one per product; None for a product without an image.

    Raises:
        ApiError: there are more images than products.
    """
    _check_number(asked, len(images), "images")
    prompts = asked.task.view_prompts(asked.sample)
    return [
        make_view(content_id(image.data), asked.task.name, prompt) if image is not None else None
        for image, prompt in zip(images + [None] * (asked.products - len(images)), prompts, strict=True)
    ]


def captioned_views_of(asked: Asked, captions: list[str | None]) -> list[View | None]:
    """Return the views of given captions, one per product; None for a product without a caption.

    Raises:
        ApiError: there are more captions than products.
    """
    _check_number(asked, len(captions), "captions")
    prompts = asked.task.view_prompts(asked.sample)
    return [
        make_view("", asked.task.name, prompt, caption) if caption is not None else None
        for caption, prompt in zip(captions + [None] * (asked.products - len(captions)), prompts, strict=True)
    ]


def _check_number(asked: Asked, number: int, field: str) -> None:
    if number > asked.products:
        raise ApiError(422, f"there are {number} {field} for {asked.products} products of this question", field=field)
