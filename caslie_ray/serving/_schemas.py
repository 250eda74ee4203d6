"""Requests and responses of the HTTP API."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "CaptionRequest", "CaptionResponse", "ImageInput", "PredictRequest", "PredictResponse", "Probability", "Question",
    "Timings", "ViewResult", "Vote", "VotesRequest", "VotesResponse",
]  # fmt: skip

Text = Annotated[str, Field(max_length=2_000_000)]
_MOST = 64


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ImageInput(_Model):
    """One product image; in a multipart request, an empty object stands for the next uploaded file."""

    url: Annotated[str, Field(max_length=8192)] | None = None
    """Public http or https URL."""

    base64: Annotated[str, Field(max_length=200_000_000)] | None = None
    """The bytes of a JPEG, PNG, GIF, WebP, BMP or TIFF file as base64, or as a data URL."""

    @model_validator(mode="after")
    def _one_of_both(self) -> ImageInput:
        if self.url is not None and self.base64 is not None:
            raise ValueError("give either url or base64")
        return self


class Question(_Model):
    """A question of one of the tasks."""

    task: Annotated[str, Field(min_length=1, max_length=100)]
    """The task by its name or code, such as `sentiment_analysis` or `SA`."""

    fields: dict[str, Text | list[Text]]
    """The texts of the task's input by name, such as `review`; the purchase history of SR is a list of titles."""

    options: Annotated[list[Text], Field(max_length=_MOST)] | None = None
    """The answers to choose from; by default the task's labels, if it has any."""

    timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds in which an answer is wanted; at most the server's `serving.deadline_s`."""


class CaptionRequest(Question):
    """Captions of the images of a question, each written for its context (EC³)."""

    images: Annotated[list[ImageInput | None], Field(min_length=1, max_length=2 * _MOST)]
    """One image per product, in the order of the products; null for a product without one."""


class VotesRequest(Question):
    """Votes on given captions (CQE)."""

    captions: Annotated[list[Text | None], Field(min_length=1, max_length=2 * _MOST)]
    """One caption per product, in the order of the products; null for a product without one."""


class PredictRequest(Question):
    """A question for uniM³."""

    images: Annotated[list[ImageInput | None], Field(max_length=2 * _MOST)] = []
    """One image per product, in the order of the products; null, or left out, for a product without one."""

    model: Annotated[str, Field(max_length=200)] | None = None
    """Name of the model that answers, one of `/v1/models`; by default the method itself."""

    instruction: Text | None = None
    """The task instruction; by default the paper's."""

    allow_text_only: bool = False
    """Whether to answer from the text alone if the captioner is not available."""

    probabilities: bool = True
    """Whether to return the probability of each option, which takes another forward pass or two."""


class Vote(_Model):
    """The vote of one voter."""

    voter: str
    """Its name."""
    answer: str | None
    """yes or no; null if it failed."""
    p_yes: float | None
    """Its probability of yes."""
    error: str | None
    """Why it failed."""


class ViewResult(_Model):
    """One product image in its context."""

    view_id: str
    """The id that `ingest` gives the same image and prompts."""
    image_id: str | None
    """The id of the stored image; null if a caption was given."""
    caption: str | None
    """The caption; null if there is none."""
    votes: list[Vote]
    """The votes so far; with early exit, only those that the verdict needed."""
    verdict: bool | None
    """Whether the caption helps the task; null if no vote was taken."""
    error: str | None
    """Why there is no caption, or no verdict."""
    cut: bool
    """Whether a text was cut so that a prompt fits."""


class Probability(_Model):
    """The probability of one option."""

    option: str
    """The option."""
    probability: float
    """Its probability by the first word in which it differs from the others; those of all options sum to 1."""


class Timings(_Model):
    """Seconds of each part; parts that were not needed are 0."""

    images: float = 0.0
    """Downloads and decoding."""
    captions: float = 0.0
    """Captions and votes."""
    answer: float = 0.0
    """The answer of uniM³."""
    total: float = 0.0
    """From the parsed request to the response."""


class _Response(_Model):
    request_id: str
    """Also in the header X-Request-ID."""
    task: str
    """Full name of the task."""
    views: list[ViewResult | None]
    """One per product; null for a product without an image."""
    models: dict[str, str]
    """Fingerprints of the models that answered this request, by name."""
    cached: int
    """Answers that came from the cache."""
    timings: Timings


class CaptionResponse(_Response):
    """Captions."""


class VotesResponse(_Response):
    """Votes and verdicts."""


class PredictResponse(_Response):
    """An answer of uniM³."""

    model: str
    """Name of the model that answered."""
    text: str
    """What it wrote."""
    answer: str | None
    """The option that the text chooses; null if it chooses none."""
    probabilities: list[Probability] | None
    """Of each option; null if not requested, or if the tokenizer does not distinguish the options."""
    text_only: bool
    """Whether the answer is from the text alone because the captioner was not available."""
    note: str | None
    """What a reader should know about this answer."""
