"""What surrounds vLLM's processes: their environment, their log, and their end."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Guard", "cause_of_death", "log_size", "prepare", "scratch"]

_TOKEN = "CASLIE_VLLM_OWNER"
# The last line of a traceback: an exception's type and what it says.
_RAISED = re.compile(r"(?:^|\s)((?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)): (.*)$")
_watchers: list[subprocess.Popen[bytes]] = []  # their standard input must stay open
_VAGUE = ("Engine core initialization failed", "EngineCore encountered an issue", "Executor failed")
# `read` ends when the owner does, however it ends. What the owner's engine started carries the token.
_WATCH = """read -r _
for p in /proc/[0-9]*; do
  grep -qa "$0" "$p/environ" 2>/dev/null && kill -9 "${p#/proc/}" 2>/dev/null
done"""


def prepare() -> None:
    """Set what vLLM reads from the environment; call it before vLLM is imported.

    vLLM tells why an engine failed in a log only, and that of another process. So its warnings go to a file of
    ours beside standard error. Nothing is sent to its makers.
    """
    if _TOKEN in os.environ:  # a process of vLLM's that imports what its owner did: it has its owner's log
        return
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    # vLLM gives its processes titles, and those may not be written over the environment that `Guard` reads.
    os.environ["SPT_NOENV"] = "1"
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    handlers = {
        "console": {"class": "logging.StreamHandler", "formatter": "vllm", "level": "ERROR"},
        "file": {"class": "logging.FileHandler", "filename": str(_log()), "formatter": "vllm", "level": "WARNING"},
    }
    settings = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"vllm": {"format": "%(asctime)s %(levelname).1s vllm %(message)s"}},
        "handlers": handlers,
        "loggers": {"vllm": {"handlers": list(handlers), "level": "WARNING", "propagate": False}},
    }
    path = _log().with_suffix(".json")
    path.write_text(json.dumps(settings))
    os.environ["VLLM_CONFIGURE_LOGGING"] = "1"
    os.environ["VLLM_LOGGING_CONFIG_PATH"] = str(path)


def log_size() -> int:
    """Bytes in the log of this process's engines."""
    return _log().stat().st_size if _log().exists() else 0


def cause_of_death(since: int) -> str | None:
    """The last exception in the log after `since` bytes that says something, or None."""
    if not _log().exists():
        return None
    with _log().open("rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").splitlines()
    found = [f"{match[1].rpartition('.')[2]}: {match[2]}" for line in lines if (match := _RAISED.search(line))]
    telling = [line for line in found if not any(vague in line for vague in _VAGUE)]
    return telling[-1] if telling else None


class Guard:
    """Sees to it that the processes of an engine end with their owner, even if that is killed.

    vLLM's engine runs in processes of its own, which wait for an owner without end when it was killed. A shell
    waits for the owner instead and then kills every process that was started within `starting`.
    """

    def __init__(self) -> None:
        self._token = f"{_TOKEN}={uuid.uuid4().hex}"
        self._shell = _watch(_WATCH, self._token)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """What starts within it is under guard."""
        name, _, value = self._token.partition("=")
        os.environ[name] = value
        try:
            yield
        finally:
            os.environ.pop(name, None)

    def kill(self) -> None:
        """End what is still under guard."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()


@functools.cache
def scratch() -> Path:
    """A folder of this process, which is removed when it has ended, even if it was killed."""
    folder = tempfile.mkdtemp(prefix="caslie-vllm-")
    # In the background, so that it is no child of ours: Ray kills the children of an actor that it ends.
    watcher = _watch('exec 3<&0; { read -r _ <&3; rm -rf -- "$0"; } &', folder)
    watcher.wait()
    _watchers.append(watcher)
    return Path(folder)


def _watch(script: str, argument: str) -> subprocess.Popen[bytes]:
    """A shell whose standard input ends when this process does."""
    return subprocess.Popen(
        ["sh", "-c", script, argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _log() -> Path:
    return scratch() / "vllm.log"
