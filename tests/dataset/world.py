"""Test data of the data set room: images, rows in the released format, and a web server."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A smooth image that depends on its seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def png(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    return encoded(picture(seed, size))


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def category(title: str, image: Any, split: str = "train", **cells: Any) -> dict[str, Any]:
    """A category classification row as the release has it: JSON inside of JSON."""
    images = [] if image is None else [image]
    row = {
        "task": "category_classification",
        "split": split,
        "instruction": "Identify the category.",
        "input": json.dumps({"title": title}),
        "options": json.dumps(["Saws", "Drills"]),
        "output": "Saws",
        "images": json.dumps(images) if all(isinstance(one, (str, dict)) for one in images) else images,
        "caption_info": json.dumps(["a saw"]),
    }
    return row | cells


def relation(first: str, second: str, images: list[Any], split: str = "train") -> dict[str, Any]:
    """A product relation row: two views."""
    return {
        "task": "PRP",
        "split": split,
        "instruction": "",
        "input": {"product 1": first, "product 2": second},
        "options": ["also buy", "also view", "similar"],
        "output": "similar",
        "images": images,
    }


def write_json(path: Path, rows: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


class Site(ThreadingHTTPServer):
    """A web server on every loopback address, whose pages are functions of the handler.

    `seen` has the path and the local address of every request.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("0.0.0.0", 0), _Handler)
        self.pages: dict[str, Any] = {}
        self.seen: list[tuple[str, str]] = []
        self.lock = Lock()
        self.open_now = 0
        self.open_most = 0

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"

    def count(self, path: str) -> int:
        return sum(1 for one, _ in self.seen if one == path)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        site = self.server
        with site.lock:
            site.seen.append((self.path, str(self.connection.getsockname()[0])))
            site.open_now += 1
            site.open_most = max(site.open_most, site.open_now)
        try:
            page = site.pages.get(self.path)
            if page is None:
                self.answer(404, b"no such page")
            elif callable(page):
                page(self)
            else:
                self.answer(200, page)
        finally:
            with site.lock:
                site.open_now -= 1

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Site]:
    with Site() as site:
        thread = Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join(timeout=5)


def drip(seconds: float) -> Any:
    """A page whose body never ends, a byte now and then."""

    def page(handler: _Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    return page


@contextmanager
def stopped_before_tables() -> Iterator[None]:
    """An ingest within it ends with KeyboardInterrupt once everything is fetched, before a table is written."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("caslie_ray.dataset._ingest.build_tables", stop)
        with pytest.raises(KeyboardInterrupt):
            yield
