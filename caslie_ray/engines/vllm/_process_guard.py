"""vLLM's processes: environment, log file, and cleanup when their owner dies."""

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
# The last line of a traceback: exception type and message.
_RAISED = re.compile(r"(?:^|\s)((?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit)): (.*)$")
_watchers: list[subprocess.Popen[bytes]] = []  # kept so that their standard input stays open
_VAGUE = ("Engine core initialization failed", "EngineCore encountered an issue", "Executor failed")
# `read` returns when the owner ends, even by SIGKILL. The engine's processes have the token in their environment.
_WATCH = """read -r _
for p in /proc/[0-9]*; do
  grep -qa "$0" "$p/environ" 2>/dev/null && kill -9 "${p#/proc/}" 2>/dev/null
done"""


def prepare() -> None:
    """Set vLLM's environment variables; must be called before vLLM is imported.

    vLLM reports why an engine failed only in the log of another process, so its warnings also go to a log file of
    this process. Usage statistics are disabled.
    """
    if _TOKEN in os.environ:  # a subprocess of vLLM, which inherits its owner's log
        return
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    # vLLM sets process titles; these must not overwrite the environment that `Guard` reads.
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
    """Return the bytes in the log of this process's engines."""
    return _log().stat().st_size if _log().exists() else 0


def cause_of_death(since: int) -> str | None:
    """Return the last informative exception in the log after `since` bytes, or None."""
    if not _log().exists():
        return None
    with _log().open("rb") as file:
        file.seek(since)
        lines = file.read().decode(errors="replace").splitlines()
    raised = [f"{match[1].rpartition('.')[2]}: {match[2]}" for line in lines if (match := _RAISED.search(line))]
    informative = [line for line in raised if not any(vague in line for vague in _VAGUE)]
    return informative[-1] if informative else None


class Guard:
    """Kills an engine's processes when their owner ends, even by SIGKILL.

    vLLM's processes wait forever for an owner that was killed. A shell waits for the owner instead, and then kills
    every process that was started within `starting`.
    """

    def __init__(self) -> None:
        self._token = f"{_TOKEN}={uuid.uuid4().hex}"
        self._shell = _watch(_WATCH, self._token)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Guard the processes that are started within this context."""
        name, _, value = self._token.partition("=")
        os.environ[name] = value
        try:
            yield
        finally:
            os.environ.pop(name, None)

    def kill(self) -> None:
        """Kill the guarded processes that are still running."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait()


@functools.cache
def scratch() -> Path:
    """Return a temporary folder that is removed when this process ends, even by SIGKILL."""
    folder = tempfile.mkdtemp(prefix="caslie-vllm-")
    # In the background, so that it is not a child of this process: Ray kills the children of an actor that it ends.
    watcher = _watch('exec 3<&0; { read -r _ <&3; rm -rf -- "$0"; } &', folder)
    watcher.wait()
    _watchers.append(watcher)
    return Path(folder)


def _watch(script: str, argument: str) -> subprocess.Popen[bytes]:
    """Start a shell whose standard input closes when this process ends."""
    return subprocess.Popen(
        ["sh", "-c", script, argument],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _log() -> Path:
    return scratch() / "vllm.log"
