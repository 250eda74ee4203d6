"""Online answers are those of the batch jobs: captions, votes, verdicts and texts of the same models."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from caslie_ray.dataset import ingest
from caslie_ray.engines import Request
from caslie_ray.fusion import sample_of
from caslie_ray.miniature import WorldSize
from caslie_ray.prediction import answerers_of
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.storage.run import Run, open_run
from caslie_ray.tasks import TASKS
from tests.serving.conftest import TRAINING, served_profile
from tests.serving.server import serving
from tests.worlds import InProcess, caption_here, draw, fresh_run


def question_of(sample: dict[str, Any], images: Sequence[bytes | None], **more: Any) -> dict[str, Any]:
    """A row of `samples` as a question of the API."""
    texts = {pair["field"]: pair["text"] for pair in sample["input"]}
    fields = {"history": list(texts.values())} if sample["task"] == "sequential_recommendation" else texts
    given = [{"base64": base64.b64encode(image).decode()} if image is not None else None for image in images]
    return {
        "task": sample["task"], "fields": fields, "options": sample["options"], "instruction": sample["instruction"],
        "images": given, **more,
    }  # fmt: skip


class Batch:
    """The answers of the batch jobs to the test samples of a run, computed in this process."""

    def __init__(self, run: Run, trained: Run, profile: Profile) -> None:
        ask = InProcess()
        caption_here(run, profile, ask)
        self.captions = {row["view_id"]: row for row in run.read("captions").to_pylist()}
        self.images = {row["image_id"]: row["image"] for row in run.read("images").to_pylist()}
        self.image_of = {row["view_id"]: row["image_id"] for row in run.read("views").to_pylist()}
        self.samples = [row for row in run.read("samples").to_pylist() if row["split"] in ("ind", "ood")]
        base, answerers = answerers_of(trained, profile)
        (self.answerer,) = [one for one in answerers if one.variant == "caslie"]
        self.texts = {}
        for sample in self.samples:
            shown = [self.shown(view) for view in sample["view_ids"]]
            prompt = TASKS[sample["task"]].prompt(sample_of(sample), shown)
            (answer,) = ask.generate(base, [Request("", prompt, adapter=self.answerer.adapter)])
            self.texts[sample["sample_id"]] = answer.text

    def shown(self, view: str | None) -> str | None:
        row = self.captions[view] if view else None
        return row["caption"] if row and row["verdict"] else None

    def images_of(self, sample: dict[str, Any]) -> list[bytes | None]:
        return [self.images[self.image_of[view]] if view else None for view in sample["view_ids"]]


@pytest.fixture(scope="module")
def batch(world: Path, trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    return Batch(fresh_run(world, tmp_path_factory.mktemp("batch") / "run"), trained, served_profile())


def check_equal(client: httpx.Client, batch: Batch) -> None:
    """Ask four samples at a time; check captions, answers, and votes that rounding cannot change."""
    assert {sample["task"] for sample in batch.samples} == set(TASKS)

    def ask(sample: dict[str, Any]) -> httpx.Response:
        return client.post("/v1/predict", json=question_of(sample, batch.images_of(sample)))

    with ThreadPoolExecutor(4) as threads:
        responses = list(threads.map(ask, batch.samples))
    for sample, response in zip(batch.samples, responses, strict=True):
        assert response.status_code == 200, response.text
        answer = response.json()
        for view_id, view in zip(sample["view_ids"], answer["views"], strict=True):
            row = batch.captions[view_id]
            assert view["view_id"] == view_id
            assert view["image_id"] == row["image_id"]
            assert view["caption"] == row["caption"]
            near = [abs(vote["p_yes"] - 0.5) <= 0.001 for vote in row["votes"]]
            if not any(near):
                assert view["verdict"] == row["verdict"]
                found = [(vote["voter"], vote["answer"]) for vote in view["votes"]]
                assert found == [(vote["voter"], vote["answer"]) for vote in row["votes"]]
        assert answer["text"] == batch.texts[sample["sample_id"]]
        assert answer["answer"] == TASKS[sample["task"]].read_answer(answer["text"], sample["options"])
        assert answer["model"] == "caslie"


def test_online_answers_are_those_of_the_batch_jobs(client: httpx.Client, batch: Batch) -> None:
    check_equal(client, batch)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("voters", "schedule"), [("together", "full"), ("early", "early")])
def test_answers_to_200_samples_with_five_voters(trained: Run, tmp_path: Path, voters: str, schedule: str) -> None:
    settings = [*TRAINING, f"serving.voters={voters}", f"votes.schedule={schedule}"]
    source = draw(tmp_path / "source", WorldSize(train=0, validation=0, ind=17, ood=17))
    run = open_run(str(tmp_path / "run"))
    profile = load_profile("mini", settings)
    ingest(run, [str(source)], profile)
    batch = Batch(run, trained, profile)
    assert len(batch.samples) >= 200
    assert len(profile.lineup.voters) == 5
    with serving(settings, Path(trained.root)) as server, server.client() as client:
        check_equal(client, batch)


def test_a_repeated_question_is_answered_from_the_cache(client: httpx.Client, batch: Batch) -> None:
    asked = question_of(batch.samples[0], batch.images_of(batch.samples[0]), instruction="Answer the question.")
    first, again = (client.post("/v1/predict", json=asked).json() for _ in range(2))
    assert again["cached"] >= 3
    assert again["models"] == {}
    assert (again["text"], again["views"]) == (first["text"], first["views"])
    assert first["request_id"] != again["request_id"]


def test_models_are_named_with_their_fingerprints(client: httpx.Client, batch: Batch) -> None:
    sample = next(one for one in batch.samples if one["task"] == "answerability_prediction")
    asked = question_of(sample, batch.images_of(sample), instruction="Can it be answered?")
    asked["fields"]["question"] += " I want to know."
    answer = client.post("/v1/predict", json=asked).json()
    assert answer["models"]["caslie"] == batch.answerer.fingerprint
    assert {"captioner", "caslie"} < set(answer["models"])
    assert sum(one["probability"] for one in answer["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert [one["option"] for one in answer["probabilities"]] == sample["options"]
    if answer["answer"] is not None:
        best = max(answer["probabilities"], key=lambda one: one["probability"])
        assert best["option"] == answer["answer"]
    assert set(answer["timings"]) == {"images", "captions", "answer", "total"}


def test_images_may_be_uploaded(client: httpx.Client, batch: Batch) -> None:
    sample = next(one for one in batch.samples if one["task"] == "product_relation_prediction")
    images = batch.images_of(sample)
    asked = question_of(sample, images)
    inline = client.post("/v1/caption", json=_caption_of(asked)).json()
    asked["images"] = [{}, {}]
    files: Any = [("image", (f"{number}.jpg", image, "image/jpeg")) for number, image in enumerate(images)]
    uploaded = client.post("/v1/caption", data={"request": json.dumps(_caption_of(asked))}, files=files)
    assert uploaded.status_code == 200, uploaded.text
    assert uploaded.json()["views"] == inline["views"]


def test_given_captions_get_the_votes_of_written_ones(client: httpx.Client, batch: Batch) -> None:
    sample = next(one for one in batch.samples if one["task"] == "category_classification")
    asked = _caption_of(question_of(sample, batch.images_of(sample)))
    written = client.post("/v1/caption", json=asked).json()["views"]
    del asked["images"]
    voted = client.post("/v1/votes", json={**asked, "captions": [view["caption"] for view in written]})
    assert voted.status_code == 200, voted.text
    for view, other in zip(written, voted.json()["views"], strict=True):
        assert (view["votes"], view["verdict"]) == (other["votes"], other["verdict"])
        assert other["image_id"] is None


def test_a_product_without_an_image_is_no_view(client: httpx.Client, batch: Batch) -> None:
    sample = next(one for one in batch.samples if one["task"] == "product_relation_prediction")
    first, _ = batch.images_of(sample)
    answer = client.post("/v1/predict", json=question_of(sample, [first, None])).json()
    assert answer["views"][0] is not None
    assert answer["views"][1] is None


def test_a_model_of_texts_needs_no_image_and_asks_no_captioner(client: httpx.Client, batch: Batch) -> None:
    sample = batch.samples[0]
    answer = client.post("/v1/predict", json=question_of(sample, batch.images_of(sample), model="text")).json()
    assert answer["model"] == "text"
    assert set(answer["models"]) <= {"text"}
    assert "text reads no images" in answer["note"]


def test_a_batch_has_a_result_or_a_problem_per_request(client: httpx.Client, batch: Batch) -> None:
    good = question_of(batch.samples[0], batch.images_of(batch.samples[0]))
    bad = {**good, "task": "nothing"}
    response = client.post("/v1/predict/batch", json={"requests": [good, bad, good]})
    assert response.status_code == 200
    first, second, third = response.json()["results"]
    assert first["text"] == third["text"]
    assert (second["status"], second["field"]) == (422, "requests.1.task")


def _caption_of(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: asked[name] for name in ("task", "fields", "options", "images")}
