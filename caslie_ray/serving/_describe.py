"""The OpenAPI document of the routes: bodies, results, and problems."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from caslie_ray.serving._openai import ChatRequest
from caslie_ray.serving._schemas import (
    CaptionRequest,
    CaptionResponse,
    PredictRequest,
    PredictResponse,
    VotesRequest,
    VotesResponse,
)

__all__ = ["describe"]

_ROUTES: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "caption": (CaptionRequest, CaptionResponse),
    "votes": (VotesRequest, VotesResponse),
    "predict": (PredictRequest, PredictResponse),
}
_REF = "#/components/schemas/"
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and what to change."},
        "field": {"type": "string", "description": "The value that is wrong, with its path."},
        "retry_after_s": {"type": "number"},
        "request_id": {"type": "string"},
    },
}
_STATUSES = (400, 401, 403, 404, 405, 413, 415, 422, 429, 500, 503, 504)


def describe(app: FastAPI) -> None:
    """Replace the application's OpenAPI document: the routes read their bodies themselves."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    models = [(model, "validation") for pair in _ROUTES.values() for model in pair] + [(ChatRequest, "validation")]
    _, definitions = models_json_schema(models, ref_template=f"{_REF}{{model}}")  # type: ignore[arg-type]
    schemas: dict[str, Any] = {**definitions["$defs"], "Problem": _PROBLEM}
    components = document.setdefault("components", {})
    components["schemas"] = schemas
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"bearer": []}]
    for name, (request, response) in _ROUTES.items():
        one, batch = document["paths"][f"/v1/{name}"]["post"], document["paths"][f"/v1/{name}/batch"]["post"]
        takes_files = "images" in request.model_fields
        one["requestBody"] = _body(_ref(request.__name__), takes_files=takes_files)
        one["responses"]["200"] = _content(_ref(response.__name__), "The result.")
        items = {"type": "array", "items": _ref(request.__name__), "minItems": 1}
        batch["requestBody"] = _body(_object("requests", items), takes_files=False)
        either = {"anyOf": [_ref(response.__name__), _ref("Problem")]}
        results = _object("results", {"type": "array", "items": either}, "request_id")
        batch["responses"]["200"] = _content(results, "A result or a problem per request, in order.")
    chat = document["paths"]["/v1/chat/completions"]["post"]
    chat["requestBody"] = _body(_ref("ChatRequest"), takes_files=False)
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            for status in _STATUSES:
                content = {"application/problem+json": {"schema": _ref("Problem")}}
                problem = {"description": "Problem details.", "content": content}
                operation["responses"][str(status)] = problem
    return document


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"{_REF}{name}"}


def _object(name: str, schema: dict[str, Any], *texts: str) -> dict[str, Any]:
    properties = {name: schema, **{text: {"type": "string"} for text in texts}}
    return {"type": "object", "properties": properties, "required": [name], "additionalProperties": bool(texts)}


def _content(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _body(schema: dict[str, Any], *, takes_files: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if takes_files:
        files = {"type": "array", "items": {"type": "string", "format": "binary"}}
        form = {"type": "object", "properties": {"request": schema, "image": files}, "required": ["request"]}
        content["multipart/form-data"] = {"schema": form}
    return {"required": True, "content": content}
