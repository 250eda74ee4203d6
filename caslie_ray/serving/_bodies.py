"""Reads request bodies: JSON, or multipart with the JSON in the part `request` and files in the parts `image`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from caslie_ray.serving._problems import ApiError

__all__ = ["Body", "read_batch", "read_body", "validated"]

_Model = TypeVar("_Model", bound=BaseModel)
_MOST_FILES = 130


class Body(NamedTuple):
    """A body: its decoded JSON, and the uploaded files."""

    document: object
    uploads: list[bytes]


async def read_body(request: Request) -> Body:
    """Return the body of a request.

    Raises:
        ApiError: it is no JSON, or its content type is not supported.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        return Body(_decoded(await request.body()), [])
    if kind != "multipart/form-data":
        raise ApiError(415, "send application/json, or multipart/form-data with the files of images")
    try:
        form = await request.form(max_files=_MOST_FILES, max_fields=1, max_part_size=4_000_000)
    except Exception as error:  # Starlette's HTTPException, and what its parser raises
        raise ApiError(400, f"the multipart body cannot be read: {_short(error)}") from None
    try:
        parts = form.multi_items()
        texts = [value for name, value in parts if name == "request"]
        if len(texts) != 1:
            raise ApiError(422, "give the JSON of the request in one part `request`", field="request")
        text = texts[0]
        document = _decoded(await text.read() if isinstance(text, UploadFile) else text.encode())
        uploads = [await value.read() for name, value in parts if name == "image" and isinstance(value, UploadFile)]
    finally:
        await form.close()
    return Body(document, uploads)


def validated(model: type[_Model], document: object) -> _Model:
    """Return a decoded document as a model.

    Raises:
        ApiError: a value is missing or not valid; its field is named.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(_path_of(first["loc"], document)) or None
        raise ApiError(422, f"{first['msg'].removeprefix('Value error, ')}", field=field) from None


def read_batch(document: object, most: int) -> list[object]:
    """Return the requests of a batch: the list `requests`.

    Raises:
        ApiError: it is no such list, or has too many items.
    """
    if not isinstance(document, dict) or set(document) != {"requests"} or not isinstance(document["requests"], list):
        raise ApiError(422, "give an object with a list of requests", field="requests")
    requests: list[object] = document["requests"]
    if not 1 <= len(requests) <= most:
        raise ApiError(422, f"a batch has 1 to {most} requests; this one has {len(requests)}", field="requests")
    return requests


def _path_of(location: Sequence[int | str], document: object) -> Iterator[str]:
    """Yield the keys of a location that lead through a document, and a last one that it lacks.

    Pydantic also names the types that it tried.
    """
    node = document
    for place in location:
        if isinstance(node, dict):
            yield str(place)
            node = node.get(place)
        elif isinstance(node, list) and isinstance(place, int) and place < len(node):
            yield str(place)
            node = node[place]


def _decoded(data: bytes) -> object:
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError:
        raise ApiError(400, "the JSON is nested too deeply") from None
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {_short(error)}") from None


def _refuse(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _short(error: BaseException) -> str:
    detail = getattr(error, "detail", None) or str(error) or type(error).__name__
    return str(detail).splitlines()[0][:200]
