"""Text from a byte stream, in pieces, with the encoding detected from the content."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from contextlib import suppress

from caslie_ray.dataset._byte_streams import ByteStream

__all__ = ["CP1252", "PIECE", "TextStream", "Undecodable", "encoding_of", "western"]

PIECE = 1 << 20

CP1252 = "cp1252"
_UTF8_ROW = "UTF-8 in a cp1252 file"
_CESU8 = "CESU-8"
# A byte that is not UTF-8 is decoded to a lone surrogate and can be turned back into the byte. An escape in JSON, such
# as \ud83d, is still plain ASCII at this point, so the two cannot be confused.
_BROKEN = re.compile("[\udc80-\udcff]+")
_LONG_RUN = 3
_MOSTLY = 5
_NOT_ASCII = re.compile("[^\x00-\x7f]")
# cp1252 leaves these bytes undefined.
_UNDEFINED = re.compile("[\udc81\udc8d\udc8f\udc90\udc9d]")
# Bytes that are signs in cp1252, such as superscripts, and letters in encodings that are like it: inside words they
# are not signs.
_SIGN_IN_WORD = re.compile(
    "(?<=[A-Za-z\udcc0-\udcff])[\udca1-\udca8\udcaa-\udcac\udcaf\udcb1-\udcb3\udcb5\udcb6\udcb9\udcba\udcbc-\udcbf](?=[A-Za-z\udcc0-\udcff])"
)
_REJECTED = "\udcff"
_HANDLER = "caslie_ray.mark_undecodable"


class Undecodable(ValueError):
    """Text that is not in the file's encoding; the message names the bytes and the fix."""


def encoding_of(head: bytes, named: str | None = None) -> str:
    """Return the encoding of a text by its first bytes: a byte order mark, or where its zero bytes are.

    The text must begin with letters up to U+00FF, as JSON and nearly all headers of tables do; otherwise UTF-16 and
    UTF-32 need a byte order mark.

    Args:
        head: the first bytes of the file, four or more where it has so many.
        named: the encoding that the user set; a byte order mark takes precedence over it.
    """
    # `json.detect_encoding` does the same, but is not documented.
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    if named is not None:
        return named
    zeros: tuple[bool, ...] = tuple(byte == 0 for byte in head[:4])
    wide: dict[tuple[bool, ...], str] = {
        (False, True, False, True): "utf-16-le",
        (True, False, True, False): "utf-16-be",
        (False, True, True, True): "utf-32-le",
        (True, True, True, False): "utf-32-be",
    }
    return wide.get(zeros, "utf-8")


def western(stream: ByteStream) -> bool:
    """Whether a file that is not UTF-8 as a whole is text in cp1252, the Western encoding of Windows.

    It is where most of its bytes beyond ASCII are not UTF-8 (a pair such as É® is valid UTF-8 by chance), none
    is undefined in cp1252, and most are single or in pairs between ASCII letters, as accents and quotes do. Other
    scripts have long runs of such bytes, and Central European text (cp1250) has what would be signs inside words.
    Other encodings of few letters, such as the Turkish one, cannot be distinguished from cp1252.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    broken = in_long_runs = signs = others = 0
    ended = False
    while not ended:
        try:
            data = stream.read(PIECE)
        except (OSError, EOFError, ValueError):  # reading the rows reports it
            data = b""
        ended = not data
        text = decoder.decode(data, final=ended)
        if text.isascii():
            continue
        if _UNDEFINED.search(text):
            return False
        runs = [len(run) for run in _BROKEN.findall(text)]
        broken += sum(runs)
        in_long_runs += sum(length for length in runs if length >= _LONG_RUN)
        signs += len(_SIGN_IN_WORD.findall(text))
        others += len(_NOT_ASCII.findall(text)) - sum(runs)
    return broken >= _MOSTLY * others and 2 * in_long_runs < broken and 20 * signs < broken


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _REJECTED * (error.end - error.start), error.end


codecs.register_error(_HANDLER, _mark)


def _utf8(raw: bytes) -> str | None:
    with suppress(UnicodeDecodeError):
        return raw.decode("utf-8")
    return None


def _may_be_cp1252(utf8: str) -> bool:
    """Whether valid UTF-8 in a cp1252 file may be cp1252 by chance: one pair of bytes, such as É®, perhaps repeated.

    Letters up to U+00FF do not count: in cp1252 they would be Â or Ã before a sign. From U+0800 on they have three
    bytes.
    """
    letters = set(_NOT_ASCII.findall(utf8))
    return len(letters) == 1 and 0x100 <= ord(letters.pop()) < 0x800


class TextStream:
    """Decodes a byte stream, and keeps bytes that are not in its encoding until `repaired` decides on them.

    A stream that ends early, such as a gzip file cut short, ends here, and `broken` has the reason.

    A file in UTF-8 with a few broken rows stays UTF-8: these rows are refused, and no other row changes. The file is
    read as cp1252 only where it is mostly cp1252 (`western`). To find that out costs a second pass, so it is
    made once, when the first broken byte is met, and files without one are read once. Rows in an earlier piece were
    valid UTF-8, and stay it.

    Args:
        stream: the bytes.
        encoding: any text encoding of Python.
        is_western: reads the entire file; None where the encoding is certain.
    """

    def __init__(self, stream: ByteStream, encoding: str, is_western: Callable[[], bool] | None = None) -> None:
        self._stream = stream
        self._encoding = encoding
        self._utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
        errors = "surrogateescape" if self._utf8 else _HANDLER
        self._decoder = codecs.getincrementaldecoder(encoding)(errors=errors)
        self._look = is_western
        self._western = False
        self._ended = False
        self._damaged = False
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
            if not self._damaged and not text.isascii() and _BROKEN.search(text):
                self._damaged = True
                self._western = self._utf8 and self._look is not None and self._look()
            if text:
                return text
        return ""

    def is_damaged(self, text: str, start: int = 0, end: int | None = None) -> bool:
        """Whether a part of the text holds bytes that are not in the encoding that it was decoded with."""
        if not self._damaged:
            return False
        if self._western:  # a pair of letters may be valid UTF-8 by chance
            return not text[start:end].isascii()
        return _BROKEN.search(text, start, len(text) if end is None else end) is not None

    def repaired(self, text: str) -> tuple[str, str]:
        """Return the decoded text of a damaged row, and the name of its encoding for the row's notes.

        A row that is valid UTF-8 stays UTF-8, even in a file that is mostly cp1252.

        Raises:
            Undecodable: the encoding cannot be determined.
        """
        if self._utf8:
            raw = text.encode("utf-8", "surrogateescape")
            if self._western:
                utf8 = _utf8(raw)
                if utf8 is not None and not _may_be_cp1252(utf8):
                    return utf8, _UTF8_ROW
                with suppress(UnicodeDecodeError):
                    return raw.decode(CP1252), CP1252
                if utf8 is not None:
                    return utf8, _UTF8_ROW
            try:
                # Some databases and Java programs write a letter beyond U+FFFF as two surrogates of three bytes each.
                pairs = raw.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass")
                return pairs.decode("utf-16"), _CESU8
            except UnicodeError:
                pass
        found = _BROKEN.search(text)
        at = found.start() if found else 0
        shown = ""
        if self._utf8 and found:
            shown = " (" + " ".join(f"{ord(letter) - 0xDC00:02X}" for letter in found[0][:4]) + ")"
        name = "UTF-8" if self._utf8 else self._encoding
        raise Undecodable(
            f"undecodable text: bytes{shown} at character {at + 1} are not {name}; write this row again in UTF-8, or"
            " name the file's encoding with ingest.encoding"
        )
