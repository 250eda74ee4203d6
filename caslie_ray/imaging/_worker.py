"""The decoder process: reads files from its standard input, a socket, and responds with the stored images.

Started by `DecoderProcess`. It ends with its parent, when the socket closes; after a minute without requests; when its
address space has grown; and by SIGPROF when an image exceeds its CPU time, also inside of C code.
"""

from __future__ import annotations

import mmap
import os
import resource
import select
import signal
from contextlib import suppress

from PIL import GifImagePlugin, Image, ImageCms, ImageOps, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin

from caslie_ray.imaging._messages import ANSWER, REASON_BYTES, REQUEST, Kind
from caslie_ray.imaging.limits import DecodeLimits
from caslie_ray.imaging.storing import ImageError, store

__all__ = ["serve"]

# Pillow would import these lazily, when files can no longer be opened.
_IMPORTED = (GifImagePlugin, ImageCms, ImageOps, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin)
_SOCKET = 0
_MAX_GROWTH = 128 << 20
_IDLE_S = 60.0


def serve() -> None:
    """Answer requests until the parent has ended or sends none for a minute."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    Image.preinit()
    space = _AddressSpace()
    with suppress(ValueError, OSError):  # macOS rejects some of them
        for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
            resource.setrlimit(limit, (0, 0))
    start = space.size()
    _send(ANSWER.pack(Kind.READY, False, 0, 0, 0))
    while select.select([_SOCKET], [], [], _IDLE_S)[0] and (request := _receive(REQUEST.size)) is not None:
        length, *limits = REQUEST.unpack(request)
        data = _receive(length)
        if data is None:
            return
        _answer(data, DecodeLimits(*limits), space)
        del data
        if space.size() > start + _MAX_GROWTH:
            return


class _AddressSpace:
    """The size of this process's address space and its limit; unknown without /proc."""

    def __init__(self) -> None:
        self._hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        try:
            self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._statm = -1

    def size(self) -> int:
        """Return the size in bytes; 0 if it is unknown."""
        return int(os.pread(self._statm, 100, 0).split()[0]) * mmap.PAGESIZE if self._statm >= 0 else 0

    def allow(self, more: int | None) -> None:
        """Let the address space grow by `more` bytes from now on; None removes our limit."""
        if self._statm >= 0:
            limit = self._hard if more is None else self.size() + more
            if self._hard != resource.RLIM_INFINITY:
                limit = min(limit, self._hard)
            resource.setrlimit(resource.RLIMIT_AS, (limit, self._hard))


def _answer(data: bytes, limits: DecodeLimits, space: _AddressSpace) -> None:
    space.allow(limits.max_memory)
    signal.setitimer(signal.ITIMER_PROF, limits.decode_timeout_s)
    try:
        stored = store(data, limits)
    except ImageError as error:
        reason = error.reason.encode("utf-8", "replace")[:REASON_BYTES]
        answer = ANSWER.pack(Kind.REJECTED, error.retryable, 0, 0, len(reason)) + reason
    else:
        if stored.data is data:
            answer = ANSWER.pack(Kind.KEPT, False, stored.width, stored.height, 0)
        else:
            header = ANSWER.pack(Kind.CONVERTED, False, stored.width, stored.height, len(stored.data))
            answer = header + stored.data
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        space.allow(None)
    _send(answer)


def _receive(size: int) -> bytes | None:
    """Read exactly that many bytes; None if the parent has ended."""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = os.readv(_SOCKET, [view[at:]])
        if not count:
            return None
        at += count
    return bytes(data)


def _send(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_SOCKET, view) :]


if __name__ == "__main__":
    # The end of the parent is not an error.
    with suppress(BrokenPipeError, ConnectionResetError):
        serve()
