"""Standard output and error that may lose their reader: ``python jobs/ingest.py … | head -1``.

The work of a job is worth more than its output, so it goes on, and its exit code is that of the work.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

__all__ = ["tolerant_output"]


class _Tolerant:
    """A text stream that discards writes after its reader has closed the pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def _drop(self) -> None:
        """Let the stream write to nowhere: what it still buffers would fail again when Python flushes it at exit."""
        with suppress(OSError, ValueError):  # a stream that is no file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Ignore that the readers of standard output and standard error are gone, here and when Python ends."""
    before = sys.stdout, sys.stderr
    # Python has no such stream where it was closed before the start.
    out, error = (_Tolerant(open(os.devnull, "w") if stream is None else stream) for stream in before)  # noqa: SIM115
    # A terminal that lacks a letter must not end a job. Standard error escapes such letters by default.
    if isinstance(before[0], io.TextIOWrapper):
        before[0].reconfigure(errors="replace")
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, error)
    try:
        yield
    finally:
        out.flush()
        error.flush()
        sys.stdout, sys.stderr = before
