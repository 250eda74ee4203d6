"""Transport of messages over a stream socket: length-prefixed pickles (protocol 5) with out-of-band buffers."""

from __future__ import annotations

import pickle
import socket
import struct
from typing import Any

__all__ = ["encode", "receive", "send"]

# Bytes of the pickle, number of buffers; the length of each buffer follows.
_HEADER = struct.Struct("<QQ")
_MAX_PARTS = 512  # the kernel takes 1,024 per call


def encode(message: Any) -> list[memoryview]:
    """Serialize a message; its `pickle.PickleBuffer` objects are not copied."""
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    header = _HEADER.pack(len(body), len(views)) + struct.pack(f"<{len(views)}Q", *map(len, views))
    return [memoryview(header + body), *(view for view in views if view)]


def send(sock: socket.socket, parts: list[memoryview]) -> None:
    """Write what `encode` returned; one thread at a time.

    Raises:
        OSError: the other end is closed, or has not read within the socket's send time-out (BlockingIOError).
    """
    waiting = list(reversed(parts))
    while waiting:
        sent = sock.sendmsg(waiting[: -_MAX_PARTS - 1 : -1])
        while waiting and sent >= len(waiting[-1]):
            sent -= len(waiting.pop())
        if sent:
            waiting[-1] = waiting[-1][sent:]


def receive(sock: socket.socket) -> Any:
    """Read one message; its out-of-band buffers arrive as `bytes`.

    Raises:
        EOFError: the other end is closed.
        OSError: the connection is lost.
    """
    size, count = _HEADER.unpack(_read(sock, _HEADER.size))
    sizes = struct.unpack(f"<{count}Q", _read(sock, 8 * count))
    body = _read(sock, size)
    return pickle.loads(body, buffers=[_read(sock, length) for length in sizes])


def _read(sock: socket.socket, size: int) -> bytes:
    parts: list[bytes] = []
    while size:
        part = sock.recv(min(size, 1 << 30), socket.MSG_WAITALL)
        if not part:
            raise EOFError("the other end is closed")
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
