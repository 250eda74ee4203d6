"""The parent's side of the decoder process: lifecycle, requests, and validation of responses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from caslie_ray.imaging._messages import ANSWER, REASON_BYTES, REQUEST, Kind
from caslie_ray.imaging.limits import DecodeLimits
from caslie_ray.imaging.storing import ImageError, StoredImage

__all__ = ["DecoderProcess"]

_COMMAND = (sys.executable, "-P", "-m", "caslie_ray.imaging._worker")
_START_S = 120.0
_EXIT_S = 0.5
_WALL_FACTOR = 10
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
# Sent from outside: no image makes a process send these to itself.
_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT}


class DecoderProcess:
    """Decodes images in a separate process, one at a time, and restarts it when it has ended.

    - An image that exceeds `decode_timeout_s` of CPU time, crashes the decoder, or takes more than `max_memory` is an
      `ImageError`; the next one gets a new process.
    - CPU time is limited, not wall-clock time, so that a busy machine does not reject images. Wall-clock time is
      limited to ten times as much plus a minute, so that a stopped process does not block its parent forever.
    - If a process that has decoded other images dies, the image is retried once in a new one, so that it is not
      rejected because of another image.

    Thread-safe. Not fork-safe. The address space is only limited on Linux.

    Args:
        command: starts the process; its standard input is the socket.
        slack_s: wall-clock seconds allowed in addition to ten times the CPU time limit.
    """

    def __init__(self, command: Sequence[str] = _COMMAND, slack_s: float = 60.0) -> None:
        self._command = command
        self._slack_s = slack_s
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None if no process is running."""
        return self._process.pid if self._process is not None else None

    def decode(self, data: bytes, limits: DecodeLimits) -> StoredImage:
        """Return the stored image of an image file.

        Raises:
            ImageError: the file cannot be used, or exceeded a limit; `retryable` if the machine caused it.
        """
        with self._lock:
            if self._process is not None:
                with suppress(_DiedError):
                    return self._ask(data, limits)
            self._start()
            try:
                return self._ask(data, limits)
            except _DiedError as died:
                raise _crash(died.code) from None

    def close(self) -> None:
        """End the process and wait for it."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        # A process that reads untrusted data gets none of the job's environment, such as credentials.
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "PATH") if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
        try:
            with theirs:
                self._process = subprocess.Popen(
                    self._command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment
                )
            self._receive(ANSWER.size, time.monotonic() + _START_S)
        except OSError as error:
            code = self._end()
            detail = f"exit code {code}" if code else error
            reason = f"no decoder: its process cannot be started ({detail}); free memory and run ingest again"
            raise ImageError(reason, retryable=True) from None

    def _ask(self, data: bytes, limits: DecodeLimits) -> StoredImage:
        """Send a request and return the response.

        Raises:
            ImageError: the process rejects the image; or it took too long or sent an invalid response, and was ended.
            _DiedError: the process died.
        """
        assert self._socket is not None
        limit_s = _WALL_FACTOR * limits.decode_timeout_s + self._slack_s
        deadline = time.monotonic() + limit_s
        longest = max(REASON_BYTES, 6 * limits.max_side**2 + 65536)
        try:
            self._socket.settimeout(limit_s)
            self._socket.sendall(REQUEST.pack(len(data), *limits))
            self._socket.sendall(data)
            kind, retryable, width, height, length = ANSWER.unpack(self._receive(ANSWER.size, deadline))
            body = self._receive(length, deadline) if length <= longest else b""
        except TimeoutError:
            self._end()
            reason = f"no answer: the decoder was not done after {limit_s:g} s; run ingest again on a less busy machine"
            raise ImageError(reason, retryable=True) from None
        except OSError:
            raise self._died(limits) from None
        if kind == Kind.REJECTED:
            raise ImageError(body.decode("utf-8", "replace"), retryable)
        stored = StoredImage(data if kind == Kind.KEPT else body, width, height)
        if kind not in (Kind.KEPT, Kind.CONVERTED) or not _is_valid(stored, limits):
            self._end()
            raise ImageError("damaged decoder: its answer is no image; this file may be an attack on it")
        return stored

    def _receive(self, size: int, deadline: float) -> bytes:
        """Read exactly that many bytes.

        Raises:
            TimeoutError: they were not received by the deadline.
            OSError: the process has closed its end.
        """
        assert self._socket is not None
        data = bytearray(size)
        view = memoryview(data)
        while view:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionResetError("the process has ended")
            view = view[count:]
        return bytes(data)

    def _died(self, limits: DecodeLimits) -> Exception:
        code = self._end()
        if code == -signal.SIGPROF:
            return ImageError(
                f"too slow: decoding takes more than images.decode_timeout_s {limits.decode_timeout_s:g} s of CPU time;"
                " save the image in a simpler form or raise the limit"
            )
        return _DiedError(code)

    def _end(self) -> int:
        """End the process, if any; return its exit code, negative for a signal."""
        process, self._process = self._process, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if process is None:
            return 0
        try:
            # It exits once its socket is closed, unless it is decoding or stopped.
            return process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


class _DiedError(Exception):
    """The decoder process died while decoding an image."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def _crash(code: int) -> ImageError:
    if -code in _OUTSIDE:
        name = signal.Signals(-code).name
        reason = f"decoder killed: {name} ended it, as it does when a machine runs out of memory; run ingest again"
        return ImageError(reason, retryable=True)
    how = signal.Signals(-code).name if -code in signal.valid_signals() else f"exit code {code}"
    return ImageError(f"damaged image: it crashed the decoder ({how}); export it again, or leave it out")


def _is_valid(stored: StoredImage, limits: DecodeLimits) -> bool:
    sides = (stored.width, stored.height)
    return stored.data.startswith(_MAGIC) and min(sides) >= 1 and max(sides) <= limits.max_side
