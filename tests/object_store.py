"""An S3 server on this machine, as a process of its own, that fails on request.

Run as: python -m tests.object_store [--port 5000] [--bucket NAME]...

A ``PUT /__fault__?kind=500&seconds=5`` from any process makes it fail for a while; see `FAULTS`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode
from xml.etree import ElementTree

__all__ = ["FAULTS", "ObjectStore", "free_port", "object_store", "object_store_in_environment"]

_ROOT = Path(__file__).parents[1]
_CONTROL = "/__fault__"
_START_S = 60.0
_ENDLESS_S = 1e9
_S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_ERROR = '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>'

_ANSWERS = {
    "500": ("500 Internal Server Error", "InternalError", "We encountered an internal error. Please try again."),
    "503": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "403": ("403 Forbidden", "AccessDenied", "Access Denied"),
    "key": ("403 Forbidden", "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist."),
    "501": ("501 Not Implemented", "NotImplemented", "A header you provided implies functionality not implemented."),
    "400": ("400 Bad Request", "InvalidArgument", "Invalid argument."),
}

FAULTS = {
    **{kind: f"answer {status}" for kind, (status, _, _) in _ANSWERS.items()},
    "unconditional": "ignore If-None-Match",
    "late": "do what is asked, then answer 500",
    "hang": "say nothing until the fault is over, then hang up",
    "reset": "hang up without an answer",
    "half": "hang up in the middle of the answer",
    "slow": "answer after `delay` seconds",
}
"""The faults that can be injected."""

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass
class _Fault:
    """A fault that lasts until a time or for a number of requests, whichever ends first."""

    kind: str
    until: float
    left: int
    delay_s: float
    share: float
    only: str


@dataclass
class _Atomic:
    """Serves one conditional put at a time: moto looks, then puts, which a real store does in one step."""

    app: _App
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ or environ["REQUEST_METHOD"] != "PUT":
            return self.app(environ, start)
        with self.lock:
            return list(self.app(environ, start))


@dataclass
class _Faulty:
    """A WSGI application that lets another one answer, unless a fault is on.

    A request counts as met once its fault has come over it; `_CONTROL` answers with the counts.
    """

    app: _App
    fault: _Fault | None = None
    met: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == _CONTROL:
            return self._control(environ, start)
        fault = self._take(environ)
        if fault is None:
            return self.app(environ, start)
        if fault.kind in _ANSWERS:
            _swallow(environ)
            return _answer(start, environ, *_ANSWERS[fault.kind])
        if fault.kind == "late":
            for _ in self.app(environ, lambda *_: None):
                pass
            return _answer(start, environ, *_ANSWERS["500"])
        if fault.kind == "unconditional":
            environ.pop("HTTP_IF_NONE_MATCH", None)
            return self.app(environ, start)
        if fault.kind == "slow":
            time.sleep(fault.delay_s)
            return self.app(environ, start)
        if fault.kind == "half":
            return self._half(environ, start)
        while fault.kind == "hang" and self.fault is not None and time.monotonic() < fault.until:
            # A client that has given up leaves a thread behind otherwise.
            if select.select([environ["werkzeug.socket"]], [], [], 0.05)[0]:
                time.sleep(0.05)
        return _hang_up(environ)

    def _take(self, environ: dict[str, Any]) -> _Fault | None:
        with self.lock:
            self.asked[environ["REQUEST_METHOD"]] += 1
            fault = self.fault
            if fault is None or fault.left <= 0 or time.monotonic() >= fault.until:
                return None
            if (
                self.chance.random() >= fault.share
                or fault.only not in f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
            ):
                return None
            fault.left -= 1
            met = replace(fault, kind=self.chance.choice(fault.kind.split(",")))
            self.met[met.kind] += 1
            return met

    def _control(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "PUT":
            asked = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
            until = time.monotonic() + float(asked.get("seconds", _ENDLESS_S))
            left, delay_s = int(asked.get("requests", 1 << 60)), float(asked.get("delay", 0))
            share = float(asked.get("share", 1))
            with self.lock:
                self.fault = _Fault(asked["kind"], until, left, delay_s, share, asked.get("only", ""))
        elif environ["REQUEST_METHOD"] == "DELETE":
            self.fault = None
        with self.lock:
            told = json.dumps({"met": self.met, "asked": self.asked}).encode()
            if environ["REQUEST_METHOD"] == "DELETE":
                self.met.clear()
                self.asked.clear()
        start("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(told)))])
        return [told]

    def _half(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = b"".join(self.app(environ, start))
        yield body[: len(body) // 2]
        yield from _hang_up(environ)


def _swallow(environ: dict[str, Any]) -> None:
    """What is left unread of a request would be taken for the next one."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def _answer(
    start: Callable[..., Any], environ: dict[str, Any], status: str, code: str, message: str
) -> Iterable[bytes]:
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else _ERROR.format(code, message).encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def _hang_up(environ: dict[str, Any]) -> Iterable[bytes]:
    with suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("told to hang up")


@dataclass(frozen=True)
class ObjectStore:
    """A running server.

    Attributes:
        port: where it listens on 127.0.0.1.
    """

    port: int

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """Return what a process wants in its environment to find the server and be let in."""
        return {
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
            # Without it a missing key is looked for on the network for seconds.
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def uri(self, bucket: str, path: str) -> str:
        """Return the URI of a path, with which a process finds the server whatever its environment says of it."""
        return f"s3://{bucket}/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http"

    def bucket(self, name: str) -> str:
        """Make a bucket; return its name."""
        self._ask("PUT", f"/{name}")
        return name

    def keys(self, bucket: str) -> dict[str, int]:
        """Return the objects of a bucket, with their sizes in bytes, as the server itself has them."""
        found: dict[str, int] = {}
        after = ""
        while True:
            asked = urlencode({"list-type": "2", "start-after": after})
            listed = ElementTree.fromstring(self._ask("GET", f"/{bucket}?{asked}"))
            page = {
                one.findtext(f"{_S3}Key", ""): int(one.findtext(f"{_S3}Size", "0"))
                for one in listed.iter(f"{_S3}Contents")
            }
            if not page:
                return found
            found |= page
            after = max(page)

    def fault(
        self,
        kind: str,
        seconds: float | None = None,
        *,
        requests: int | None = None,
        delay: float = 0,
        share: float = 1,
        only: str = "",
    ) -> None:
        """Make the server fail from now on.

        Args:
            kind: one of `FAULTS`, or several with commas between, of which each request meets one.
            seconds: for how long; until `heal` where None.
            requests: how many requests it comes over; all where None.
            delay: seconds until the answer, for ``slow``.
            share: of the requests that it comes over, by chance.
            only: what the request's method and path must hold, such as ``PUT`` or ``/captions/``.
        """
        assert set(kind.split(",")) <= FAULTS.keys(), kind
        asked = {"kind": kind, "seconds": seconds, "requests": requests, "delay": delay, "share": share, "only": only}
        self._ask("PUT", f"{_CONTROL}?{urlencode({key: value for key, value in asked.items() if value is not None})}")

    def heal(self) -> dict[str, Counter[str]]:
        """End the fault; return how many requests it came over by kind (``met``), and all by method (``asked``)."""
        return {name: Counter(counts) for name, counts in json.loads(self._ask("DELETE", _CONTROL)).items()}

    def _ask(self, method: str, path: str) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(self.endpoint + path, method=method), timeout=30) as answer:
            said: bytes = answer.read()
        return said


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def object_store(port: int | None = None, buckets: Sequence[str] = ()) -> Iterator[ObjectStore]:
    """Start a server, and stop it at the end; what it held is gone then."""
    store = ObjectStore(port or free_port())
    command = [sys.executable, "-m", "tests.object_store", "--port", str(store.port)]
    command += [word for bucket in buckets for word in ("--bucket", bucket)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait_for(store, server)
            yield store
        finally:
            server.kill()


@contextmanager
def object_store_in_environment(buckets: Sequence[str] = ()) -> Iterator[ObjectStore]:
    """Start a server that this process and its children find by their environment."""
    import pytest  # the server itself starts sooner without

    with object_store(buckets=buckets) as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment().items():
            patch.setenv(name, value)
        yield store


def _wait_for(store: ObjectStore, server: subprocess.Popen[bytes]) -> None:
    begun = time.monotonic()
    while time.monotonic() - begun < _START_S:
        with suppress(OSError):
            store.heal()
            return
        assert server.poll() is None, f"the server ended with {server.returncode}"
        time.sleep(0.05)
    raise TimeoutError(f"nothing answers on port {store.port}")


def _serve(port: int, buckets: Sequence[str]) -> None:
    # The caller's environment may send S3 elsewhere, and moto asks it too.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["MOTO_PORT"] = str(port)

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server
    from werkzeug.test import Client

    app: Any = DomainDispatcherApplication(create_backend_app)
    for bucket in buckets:
        made = Client(app).put(f"/{bucket}", base_url=f"http://127.0.0.1:{port}")
        assert made.status_code == 200, made.text
    make_server("127.0.0.1", port, _Faulty(_Atomic(app)), threaded=True).serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--bucket", action="append", default=[], help="to be there from the start")
    options = parser.parse_args()
    _serve(options.port, options.bucket)
