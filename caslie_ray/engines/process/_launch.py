"""Starts an engine process under its keeper, and ends it with all of its descendants."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from caslie_ray.engines.process._error_log import ErrorLog

__all__ = ["LaunchError", "Launched"]

_KEEPER = str(Path(__file__).with_name("_keeper.py"))
_START_S = 60.0
_KILL_S = 30.0
# Added to the owner's score, so that the OOM killer picks the engine first. The maximum is 1000.
_OOM_SCORE_ADJ = 500


class LaunchError(OSError):
    """The process cannot be started."""


class Launched:
    """An engine process that has been started, and its keeper.

    Args:
        environment: variables that differ from this process's.

    Raises:
        LaunchError: the machine has no memory or process ids left.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.socket, theirs = socket.socketpair()
        self._lifeline, keepers = socket.socketpair()
        reading, writing = os.pipe()
        python = sys.executable
        # The engine needs only descriptors 0 to 2 and imports what this process would.
        command = [python, "-P", "-m", "caslie_ray.engines.process.child"]
        arguments = [str(os.getpid()), str(keepers.fileno()), str(_oom_score_adj()), *command]
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        try:
            launcher = subprocess.Popen(
                [python, "-I", "-S", _KEEPER, *arguments],
                stdin=theirs.fileno(),
                stdout=writing,
                stderr=writing,
                pass_fds=[keepers.fileno()],
                env={**os.environ, "PYTHONPATH": path, **environment},
            )
            launcher.wait()  # the keeper has detached from it
        except OSError as error:
            os.close(reading)
            self.socket.close()
            self._lifeline.close()
            raise LaunchError(f"an engine process cannot be started: {error}") from error
        finally:
            os.close(writing)
            theirs.close()
            keepers.close()
        self.log = ErrorLog(reading)
        self.exit_code: int | None = None
        self._ended = threading.Event()
        self._lifeline.settimeout(_START_S)
        self._lines = self._lifeline.makefile("r")
        line = self._read_line()
        if not line.startswith("pid "):
            self.kill()
            raise LaunchError("an engine process cannot be started: its keeper has ended")
        self.pid = int(line.split()[1])
        self._lifeline.settimeout(None)
        threading.Thread(target=self._wait_for_end, name="engine-keeper", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait until the process and all of its descendants have ended; return whether they have."""
        return self._ended.wait(seconds)

    def kill(self) -> bool:
        """End the process and all of its descendants; return False if some survive, as in a hanging driver."""
        with suppress(OSError):
            self._lifeline.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        return self._ended.wait(_KILL_S)

    def _wait_for_end(self) -> None:
        line = self._read_line()
        if line.startswith("exit "):
            self.exit_code = int(line.split()[1])
        else:  # the keeper was killed, and with it the engine: what is in its session is left
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
        self._lines.close()
        self._lifeline.close()
        self._ended.set()

    def _read_line(self) -> str:
        try:
            return self._lines.readline()
        except OSError:
            return ""


def _oom_score_adj() -> int:
    try:
        own = int(Path("/proc/self/oom_score_adj").read_text())
    except (OSError, ValueError):
        own = 0
    return min(1000, own + _OOM_SCORE_ADJ)
