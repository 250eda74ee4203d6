"""The composition: images become captions, votes and verdicts, and uniM³ answers (paper 4.1 to 4.3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from caslie_ray.captioning import View
from caslie_ray.captioning.online import answer_view
from caslie_ray.dataset.online import ImageReader, StoredImage
from caslie_ray.engines import Request
from caslie_ray.errors import EngineError, ModelUnavailable
from caslie_ray.prediction import Answerer
from caslie_ray.prompts import Prompt
from caslie_ray.roles import ResolvedLineup
from caslie_ray.serving._cache import AnswerCache, RequestAnswers
from caslie_ray.serving._images import read_images
from caslie_ray.serving._models import Calls, ModelBusy, Models, check_answered, problem_of
from caslie_ray.serving._plan import ServingPlan
from caslie_ray.serving._probabilities import option_probabilities
from caslie_ray.serving._problems import ApiError
from caslie_ray.serving._questions import Asked, captioned_views_of, parse_question, views_of
from caslie_ray.serving._schemas import (
    CaptionRequest,
    CaptionResponse,
    PredictRequest,
    PredictResponse,
    Probability,
    Question,
    Timings,
    ViewResult,
    Vote,
    VotesRequest,
    VotesResponse,
)
from caslie_ray.tasks import strip_mark

__all__ = ["Service"]

_LOADING_S = 5.0


class Service:
    """Answers the requests of the API.

    Args:
        plan: what is served.
        models: its deployments.
        reader: reads images.

    Attributes:
        cache: the answers of earlier requests.
    """

    def __init__(self, plan: ServingPlan, models: Models, reader: ImageReader) -> None:
        self.plan = plan
        self.models = models
        self.reader = reader
        self._settings = plan.profile.serving
        self.cache = AnswerCache(self._settings.cache)

    async def caption(self, request: CaptionRequest, uploads: Sequence[bytes], request_id: str) -> CaptionResponse:
        """Caption images for their context, and vote on the captions.

        Raises:
            ApiError: the request is not valid, or a model does not answer in time.
        """
        asked = parse_question(request)
        if self.plan.lineup.captioner is None:
            raise ApiError(503, "no captioner is served: set captions.source=generated")
        async with _Turn(self, request) as turn:
            images = await turn.read(request.images, uploads)
            views = await turn.views(views_of(asked, images), images, self.plan.lineup)
        return CaptionResponse(**turn.response(asked, request_id), views=views)

    async def votes(self, request: VotesRequest, request_id: str) -> VotesResponse:
        """Vote on given captions.

        Raises:
            ApiError: the request is not valid, or a model does not answer in time.
        """
        asked = parse_question(request)
        if self.plan.lineup.rule != "majority":
            raise ApiError(503, "no voter is served: set votes.rule=majority")
        lineup = replace(self.plan.lineup, captioner=None)
        async with _Turn(self, request) as turn:
            views = await turn.views(captioned_views_of(asked, request.captions), [], lineup)
        return VotesResponse(**turn.response(asked, request_id), views=views)

    async def predict(self, request: PredictRequest, uploads: Sequence[bytes], request_id: str) -> PredictResponse:
        """Answer a question.

        Raises:
            ApiError: the request is not valid, or a model does not answer in time.
        """
        asked = parse_question(request, request.instruction)
        answerer = self.answerer(request.model)
        if not answerer.answers(asked.task.name):
            raise ApiError(422, f"{request.model} was trained for {', '.join(answerer.tasks)} only", field="model")
        lineup = _lineup_for(answerer, self.plan.lineup)
        notes: list[str] = []
        text_only = False
        views: list[ViewResult | None] = [None] * asked.products
        async with _Turn(self, request) as turn:
            if answerer.reads != "text":
                images = await turn.read(request.images, uploads)
                try:
                    async with asyncio.timeout(turn.seconds / 2 if request.allow_text_only else None):
                        views = await turn.views(views_of(asked, images), images, lineup)
                except (ModelUnavailable, TimeoutError) as error:
                    if not request.allow_text_only:
                        raise
                    text_only = True
                    why = str(error) or f"no caption within {turn.seconds / 2:g} s"
                    notes.append(f"answered from the text alone: {why}")
            elif request.images:
                notes.append(f"{answerer.variant} reads no images")
            shown = [view.caption if view is not None and _is_shown(view, lineup) else None for view in views]
            prompt = asked.task.prompt(asked.sample, shown)
            with turn.timed("answer"):
                text, cut = await turn.generate(answerer, prompt)
                probabilities = None
                if request.probabilities:
                    probabilities, note = await turn.probabilities(answerer, prompt, asked.sample.options, text)
                    notes += [note] if note else []
        notes += ["a text was cut so that the prompt fits"] if cut else []
        return PredictResponse(
            **turn.response(asked, request_id),
            views=views,
            model=answerer.variant,
            text=text,
            answer=asked.task.read_answer(text, asked.sample.options),
            probabilities=probabilities,
            text_only=text_only,
            note="; ".join(notes) or None,
        )

    def answerer(self, name: str | None) -> Answerer:
        """Return who answers under a name.

        Raises:
            ApiError: there is no such model.
        """
        known = self.plan.answerers
        found = known.get(name or self.plan.default_model)
        if found is None:
            raise ApiError(404, f"there is no model {name!r} here; there are {', '.join(known)}", field="model")
        return found

    def seconds(self, wanted: float | None) -> float:
        """Return the seconds that a request has."""
        return min(wanted or self._settings.deadline_s, self._settings.deadline_s)

    def check_ready(self) -> None:
        """Refuse requests until the needed models are loaded.

        Raises:
            ApiError: a model is loading, or cannot be started.
        """
        needed = {model.name for model in self.plan.models if model.needed}
        for name, why in self.models.failed().items():
            if name in needed:
                raise ApiError(503, f"{name} cannot be started: {why.splitlines()[0]}")
        if loading := [name for name in self.models.loading() if name in needed]:
            raise ApiError(503, f"still loading: {', '.join(loading)}", retry_after_s=_LOADING_S)


class _Turn:
    """One request: its deadline, calls, answers and timings. As a context, it turns errors of models into problems."""

    def __init__(self, service: Service, question: Question) -> None:
        self._service = service
        self._started = time.monotonic()
        self.seconds = service.seconds(question.timeout_s)
        self._timings = dict.fromkeys(("images", "captions", "answer"), 0.0)
        self._answers = RequestAnswers(service.cache)
        self._calls = Calls(service.models, asyncio.get_running_loop().time() + self.seconds)
        self._timeout = asyncio.timeout(self.seconds)

    async def __aenter__(self) -> _Turn:
        self._service.check_ready()
        await self._timeout.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            error = TimeoutError()
        if isinstance(error, (TimeoutError, ModelBusy, ModelUnavailable)):
            raise problem_of(error, self.seconds, ": ask about fewer images, or raise timeout_s") from None
        if error is None and not self._calls.changed:
            self._answers.commit()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Measure a part."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._timings[part] += time.monotonic() - started

    async def read(self, images: Sequence[Any], uploads: Sequence[bytes]) -> list[StoredImage | None]:
        """Return the stored images."""
        with self.timed("images"):
            return await read_images(images, uploads, self._service.reader)

    async def views(
        self, views: Sequence[View | None], images: Sequence[StoredImage | None], lineup: ResolvedLineup
    ) -> list[ViewResult | None]:
        """Caption views and vote on their captions; equal views are answered once."""
        encoded = {view.view_id: image.data for view, image in zip(views, images, strict=False) if view and image}
        distinct = {view.view_id: view for view in views if view is not None}
        together = self._service.plan.profile.serving.voters == "together"
        with self.timed("captions"):
            rows = await asyncio.gather(
                *(
                    answer_view(view, encoded.get(view_id), lineup, self._calls, self._answers, together=together)
                    for view_id, view in distinct.items()
                )
            )
        results = {row.view.view_id: _view_result(row.finished(lineup), lineup) for row in rows}
        return [results[view.view_id] if view is not None else None for view in views]

    async def generate(self, answerer: Answerer, prompt: Prompt) -> tuple[str, bool]:
        """Return uniM³'s answer, and whether its prompt was cut."""
        key = answerer.key(prompt.text)
        answer = self._answers.get(key)
        if answer is None:
            answer = await self._calls.generate(self._service.plan.base, Request(key, prompt, adapter=answerer.adapter))
            check_answered(answer)
            self._answers[key] = answer
        return answer.text, answer.cut or answer.captions_cut

    async def probabilities(
        self, answerer: Answerer, prompt: Prompt, options: Sequence[str], text: str
    ) -> tuple[list[Probability] | None, str | None]:
        """Return the probability of each option, spelled as the model answers: with or without a mark such as `A:`.

        None, and the reason, if the tokenizer does not distinguish the options.
        """
        marked = strip_mark(text) != text.strip()

        async def choose(prefix: str, choices: Sequence[str]) -> Sequence[float]:
            key = answerer.key("\x00".join((prompt.text, prefix, *choices)))
            choice = self._answers.get(key)
            if choice is None:
                request = Request(key, prompt, adapter=answerer.adapter, answer_prefix=prefix)
                choice = await self._calls.choose(self._service.plan.base, request, choices)
                if choice.failure is None or not choice.failure.retryable:
                    self._answers[key] = choice
            if choice.failure is not None:
                raise EngineError(choice.failure.reason)
            probabilities: Sequence[float] = choice.probabilities
            return probabilities

        try:
            shares = await option_probabilities([one if marked else strip_mark(one) for one in options], choose)
        except EngineError as error:
            return None, f"no probabilities: {error}"
        pairs = zip(options, shares, strict=True)
        return [Probability(option=option, probability=round(share, 6)) for option, share in pairs], None

    def response(self, asked: Asked, request_id: str) -> dict[str, Any]:
        """Return the fields that all responses have, but for the views."""
        timings = {part: round(seconds, 4) for part, seconds in self._timings.items()}
        return {
            "request_id": request_id,
            "task": asked.task.name,
            "models": dict(self._calls.fingerprints),
            "cached": self._answers.hits,
            "timings": Timings(**timings, total=round(time.monotonic() - self._started, 4)),
        }


def _lineup_for(answerer: Answerer, lineup: ResolvedLineup) -> ResolvedLineup:
    """Return the lineup of the captions that a model reads: uia reads them all, so no vote is taken."""
    return replace(lineup, rule="always", voters=()) if answerer.reads == "uia" else lineup


def _is_shown(view: ViewResult, lineup: ResolvedLineup) -> bool:
    return lineup.rule == "always" or bool(view.verdict)


def _view_result(row: dict[str, Any], lineup: ResolvedLineup) -> ViewResult:
    votes = [
        Vote(voter=vote["voter"], answer=vote["answer"], p_yes=vote["p_yes"], error=vote["error"])
        for vote in row["votes"]
    ]
    return ViewResult(
        view_id=row["view_id"],
        image_id=row["image_id"] or None,
        caption=row["caption"],
        votes=votes,
        verdict=row["verdict"] if lineup.rule == "majority" else None,
        error=row["error"],
        cut=row["cut"],
    )
