"""A model hub of one's own: an HTTP server that answers huggingface_hub's requests, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["Fault", "Hub", "environment", "hub"]

_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_CHUNK = 1 << 16


@dataclass
class Fault:
    """An answer in place of the usual one.

    Attributes:
        path: a regular expression that the path holds.
        status: of the answer.
        headers: of the answer.
        times: how many requests get it; None for all.
    """

    path: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = None


@dataclass
class Hub:
    """What the server holds, and what it was asked.

    Attributes:
        url: where it listens.
        commits: folders by checkpoint and commit.
        refs: commits by checkpoint and branch.
        sizes: bytes that it says a file of a path has, in place of the true ones.
        faults: the first that fits a request answers it.
        delay_s: seconds between two chunks of a file.
        asked: requests by method and path.
    """

    url: str = ""
    commits: dict[tuple[str, str], Path] = field(default_factory=dict)
    refs: dict[tuple[str, str], str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    delay_s: float = 0.0
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)

    def publish(self, checkpoint: str, folder: Path, branch: str = "main") -> str:
        """Make a folder the newest commit of a branch; return the commit."""
        files = b"".join(file.name.encode() + file.read_bytes() for file in sorted(folder.iterdir()))
        commit = hashlib.sha1(files).hexdigest()
        self.commits[checkpoint, commit] = folder
        self.refs[checkpoint, branch] = commit
        return commit

    def count(self, pattern: str, method: str = "GET") -> int:
        """Requests of a method whose path holds a pattern."""
        return sum(times for (how, path), times in self.asked.items() if how == method and re.search(pattern, path))

    def commit(self, checkpoint: str, revision: str) -> str | None:
        """The commit of a revision."""
        return revision if (checkpoint, revision) in self.commits else self.refs.get((checkpoint, revision))

    def fault(self, path: str) -> Fault | None:
        """The fault that a request meets."""
        for fault in self.faults:
            if re.search(fault.path, path) and fault.times != 0:
                fault.times = None if fault.times is None else fault.times - 1
                return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path != "/api/agent-harnesses":  # the client's own, not of a checkpoint
            self.hub.asked[self.command, path] += 1
        fault = self.hub.fault(path)
        if fault is not None:
            self._send(fault.status, b'{"error": "a fault"}', **fault.headers)
        elif found := _FILE.fullmatch(path):
            self._file(*found.groups())
        elif found := _API.fullmatch(path):
            self._api(*found.groups())
        else:
            self._send(404, b"{}")

    def _api(self, checkpoint: str, what: str | None, revision: str | None) -> None:
        commit = self._find(checkpoint, revision or "main")
        if commit is None:
            return
        folder = self.hub.commits[checkpoint, commit]
        files = sorted(file for file in folder.iterdir() if file.is_file())
        if what == "tree":
            listed = [
                {"type": "file", "path": file.name, "oid": _digest(file), "size": self._size(file)} for file in files
            ]
            self._send(200, json.dumps(listed).encode())
        else:
            siblings = [{"rfilename": file.name} for file in files]
            self._send(200, json.dumps({"id": checkpoint, "sha": commit, "siblings": siblings}).encode())

    def _find(self, checkpoint: str, revision: str) -> str | None:
        commit = self.hub.commit(checkpoint, revision)
        if commit is None:
            known = any(name == checkpoint for name, _ in self.hub.commits)
            self._send(404, b"{}", **{"X-Error-Code": "RevisionNotFound" if known else "RepoNotFound"})
        return commit

    def _file(self, checkpoint: str, revision: str, name: str) -> None:
        commit = self._find(checkpoint, revision)
        if commit is None:
            return
        file = self.hub.commits[checkpoint, commit] / name
        if not file.is_file():
            self._send(404, b"{}", **{"X-Error-Code": "EntryNotFound"})
            return
        body = file.read_bytes()
        headers = {"ETag": f'"{_digest(file)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if self.headers["Range"] else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self._send(206 if start else 200, body[start:], **headers)

    def _size(self, file: Path) -> int:
        return self.hub.sizes.get(file.name, file.stat().st_size)

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                for at in range(0, len(body), _CHUNK):
                    self.wfile.write(body[at : at + _CHUNK])
                    time.sleep(self.hub.delay_s)
        except (BrokenPipeError, ConnectionResetError):  # the one who asked has died
            self.close_connection = True


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub on a free port of this machine."""
    state = Hub()
    handler = type("Handler", (_Handler,), {"hub": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def environment(url: str, home: Path, *, offline: bool = False) -> dict[str, str]:
    """The variables of a process that takes this for the hub."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_TOKEN": "",
        "no_proxy": "127.0.0.1",
        "NO_PROXY": "127.0.0.1",
    }
