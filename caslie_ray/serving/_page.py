"""The page at `/`, its examples, and the page that shows the API's documentation. No file is from another host."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from caslie_ray.miniature import WorldSize, write_dataset
from caslie_ray.serving._service import Service
from caslie_ray.tasks import TASKS

__all__ = ["add_page"]

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_FILES = {
    "/": "page.html", "/page.js": "page.js", "/page.css": "page.css", "/docs": "docs.html", "/docs.js": "docs.js",
}  # fmt: skip
_PER_TASK = 3


def add_page(app: FastAPI, service: Service) -> None:
    """Add the routes of the page."""
    for path, name in _FILES.items():
        app.get(path, include_in_schema=False)(_file(name))

    @app.get("/examples.json", include_in_schema=False)
    async def examples() -> Response:
        """Return the tasks, the models, and example questions of the miniature world."""
        drawn = await asyncio.to_thread(_examples)
        plan = service.plan
        models = {"models": list(plan.answerers), "default": plan.default_model}
        captions = plan.lineup.captioner is not None
        return JSONResponse({"tasks": _tasks(), "examples": drawn, "captions": captions, **models})


def _file(name: str) -> Any:
    content = files("caslie_ray.serving").joinpath("assets", name).read_text(encoding="utf-8")

    async def answer() -> Response:
        return Response(content, media_type=f"{_TYPES[Path(name).suffix]}; charset=utf-8")

    return answer


def _tasks() -> list[dict[str, Any]]:
    """Return what the page needs to ask each task."""
    return [
        {
            "name": task.name,
            "code": task.code,
            "title": task.name.replace("_", " "),
            "fields": [{"name": item.name, "required": item.required} for item in task.inputs],
            "labels": list(task.labels),
        }
        for task in TASKS.values()
    ]


@lru_cache(maxsize=1)
def _examples() -> dict[str, list[dict[str, Any]]]:
    """Draw questions of the miniature world: per task, fields, options, answer, and images as data URLs."""
    size = WorldSize(train=0, validation=0, ind=_PER_TASK, ood=0)
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        records = json.loads(write_dataset(folder, size).read_text(encoding="utf-8"))
        for record in records:
            given = json.loads(record["input"])
            fields = {"history": given} if isinstance(given, list) else given
            images = [_data_url(Path(folder, place)) for place in json.loads(record["images"])]
            options = json.loads(record["options"])
            example = {"fields": fields, "options": options, "answer": record["output"], "images": images}
            found.setdefault(record["task"], []).append(example)
    return found


def _data_url(path: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
