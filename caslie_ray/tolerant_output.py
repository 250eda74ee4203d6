"""Standard output and error that tolerate a closed pipe, as in ``python jobs/ingest.py … | head -1``.

The job continues, and its exit code is that of its work.
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
        """Redirect the stream to /dev/null: flushing its buffer at exit would fail again."""
        with suppress(OSError, ValueError):  # not a file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Context manager that ignores closed readers of standard output and error, also when Python exits."""
    before = sys.stdout, sys.stderr
    # A stream that was closed before the start is None.
    out, error = (_Tolerant(open(os.devnull, "w") if stream is None else stream) for stream in before)  # noqa: SIM115
    # A character that the terminal cannot encode must not end a job. Standard error escapes them by default.
    if isinstance(before[0], io.TextIOWrapper):
        before[0].reconfigure(errors="replace")
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, error)
    try:
        yield
    finally:
        out.flush()
        error.flush()
        sys.stdout, sys.stderr = before
