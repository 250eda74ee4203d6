"""Standard error of an engine process: copied to the owner's, the last lines kept."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress

__all__ = ["ErrorLog"]

_LINES = 100
_LINE_BYTES = 1000


class ErrorLog:
    """Copies a pipe to this process's standard error until all writers have closed it.

    Args:
        pipe: file descriptor of the end that is read; it is closed at the end.
    """

    def __init__(self, pipe: int) -> None:
        self._lines: deque[tuple[float, str]] = deque(maxlen=_LINES)
        self._thread = threading.Thread(target=self._copy, args=(pipe,), name="engine-stderr", daemon=True)
        self._thread.start()

    def last(self, since: float) -> tuple[str, ...]:
        """Return the last lines that are not older than `since`, in seconds of the monotonic clock."""
        self._thread.join(0.5)
        return tuple(line for when, line in list(self._lines) if when >= since)

    def _copy(self, pipe: int) -> None:
        rest = b""
        while data := os.read(pipe, 65536):
            with suppress(OSError):
                os.write(2, data)
            *lines, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            rest = rest[-_LINE_BYTES:]
            self._keep(lines)
        self._keep([rest])
        os.close(pipe)

    def _keep(self, lines: list[bytes]) -> None:
        now = time.monotonic()
        for line in lines:
            text = line[:_LINE_BYTES].decode(errors="replace").strip()
            if text:
                self._lines.append((now, text))
