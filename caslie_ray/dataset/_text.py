"""Text from a byte stream, a piece at a time."""

from __future__ import annotations

import codecs
import zlib
from typing import Protocol

__all__ = ["ByteStream", "Gunzip", "TextStream", "encoding_of"]

PIECE = 1 << 20
_PACKED = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class ByteStream(Protocol):
    """What is needed of a stream: pyarrow's and Python's both have it."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


class Gunzip:
    """Unpacks a gzip stream; of one that is cut short or damaged, all that came before is given first."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._member = zlib.decompressobj(wbits=31)
        self._left = b""
        self._between = False

    def read(self, size: int, /) -> bytes:
        """Return up to `size` unpacked bytes; none at the end.

        Raises:
            OSError: the stream is damaged or lacks its end.
        """
        while True:
            self._left = self._left or self._stream.read(_PACKED)
            if not self._left:
                if self._between:
                    return b""
                raise OSError("the gzip data has no end")
            if self._between:
                self._member = zlib.decompressobj(wbits=31)
            try:
                data = self._member.decompress(self._left, size)
            except zlib.error as error:
                raise OSError(f"the gzip data is damaged ({error})") from None
            self._between = self._member.eof
            self._left = self._member.unused_data.lstrip(b"\0") if self._between else self._member.unconsumed_tail
            if data:
                return data


def encoding_of(head: bytes) -> str:
    """Return the encoding that a file's first bytes announce; UTF-8 where they announce none."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


class TextStream:
    """Decodes a byte stream; bytes that are no text become U+FFFD and cost nothing else.

    A stream that breaks off, such as a gzip file cut short, ends here, and `broken` says why.
    """

    def __init__(self, stream: ByteStream, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._ended = False
        self.broken: str | None = None

    def more(self) -> str:
        """Return the next piece of text, about a million characters; ``""`` at the end."""
        while not self._ended:
            try:
                data = self._stream.read(PIECE)
            except (OSError, EOFError, ValueError) as error:
                self.broken = str(error).split("\n")[0][:200] or type(error).__name__
                data = b""
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
            if text:
                return text
        return ""
