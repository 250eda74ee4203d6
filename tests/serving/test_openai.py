"""The `openai` client, unchanged: lists models, completes, streams, and sends an image."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.serving.server import Server
from tests.serving.test_bad_requests import png


@pytest.fixture
def chats(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models_are_listed(chats: openai.OpenAI) -> None:
    assert [model.id for model in chats.models.list()] == ["captioner", "caslie", "text", "base"]


@pytest.mark.parametrize("model", ["base", "caslie"])
def test_a_stream_has_the_text_of_a_completion(chats: openai.OpenAI, model: str) -> None:
    messages: Any = [{"role": "system", "content": "Only answer yes or no."}, {"role": "user", "content": "Is it red?"}]
    whole = chats.chat.completions.create(model=model, messages=messages)
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0
    assert whole.system_fingerprint
    pieces: Any = chats.chat.completions.create(model=model, messages=messages, stream=True)
    choices = [chunk.choices[0] for chunk in pieces]
    assert len(choices) > 2
    assert "".join(choice.delta.content or "" for choice in choices).strip() == whole.choices[0].message.content
    assert choices[-1].finish_reason == whole.choices[0].finish_reason


def test_an_answer_may_be_limited(chats: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Is it red?"}]
    whole = chats.chat.completions.create(model="base", messages=messages)
    short = chats.chat.completions.create(model="base", messages=messages, max_tokens=1)
    assert whole.usage is not None
    assert short.usage is not None
    assert whole.usage.completion_tokens > short.usage.completion_tokens == 1
    assert short.choices[0].finish_reason == "length"
    assert (whole.choices[0].message.content or "").startswith(short.choices[0].message.content or "-")
    pieces: Any = chats.chat.completions.create(model="base", messages=messages, max_completion_tokens=1, stream=True)
    choices = [chunk.choices[0] for chunk in pieces]
    assert "".join(choice.delta.content or "" for choice in choices).strip() == short.choices[0].message.content
    assert choices[-1].finish_reason == "length"


def test_the_captioner_describes_an_image(chats: openai.OpenAI) -> None:
    url = "data:image/png;base64," + base64.b64encode(png()).decode()
    content = [{"type": "text", "text": "Please generate an informative caption for the product in the image."},
               {"type": "image_url", "image_url": {"url": url}}]  # fmt: skip
    messages: Any = [{"role": "user", "content": content}]
    answer = chats.chat.completions.create(model="captioner", messages=messages)
    assert answer.choices[0].message.content


def test_errors_are_those_of_the_client(chats: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        chats.chat.completions.create(model="gpt", messages=[{"role": "user", "content": "Hello"}])


def test_a_stream_that_is_left_ends(client: httpx.Client) -> None:
    """The engine answers others at once after a client has left in the middle of a stream."""
    body = {"model": "base", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    for _ in range(3):
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert next(response.iter_lines()).startswith("data: ")
    assert client.post("/v1/chat/completions", json={**body, "stream": False}).status_code == 200
