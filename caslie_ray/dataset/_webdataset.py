"""Rows of WebDataset shards: tar archives in which the members of a row follow each other and share a key.

An archive is read as a stream. Nothing is written to disk, links are not followed, and only regular files are read.
Several archives may follow each other in a file. The sizes that headers name are not trusted: `_Header` and `_Source`
limit what the standard library reads for a header.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import Any, Self, cast

from caslie_ray.dataset._byte_streams import ByteStream
from caslie_ray.dataset._json_buffer import parse_json
from caslie_ray.dataset._json_scan import excess, too_many_values
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._pictures import is_picture
from caslie_ray.dataset._shapes import Damage, Found

__all__ = ["read_webdataset", "webdataset_format"]

_MAGIC, _MAGIC_AT = b"ustar", 257
# As the webdataset library divides names; hidden files have no key.
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_META = re.compile(r"__[^/]*__(?:/|$)")
_NO_KEY = "members without a key left out"
_SPECIAL = "links and special files left out"
_BINARY = "members that are neither pictures nor UTF-8 text left out"
_OWN_PICTURES = "pictures of the shard in place of those that its JSON names"
_REPEATED = "members left out: the row has another value of this column"
_COLUMN = {"txt": "text"}
_PIECE = 64 << 10
_NAME_BYTES = 8 << 10  # of a header that has a long name
_HEADER_BYTES = 1 << 20  # that the headers of a member take, with the empty blocks before them
_CUT = "truncated file: it ends inside of the tar; the rows before it are kept, copy it again"
_NAME_TYPES = frozenset(
    (
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    )
)


def webdataset_format(head: bytes) -> bool:
    """Whether a file that begins with `head` is a tar archive."""
    return head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] == _MAGIC


def read_webdataset(stream: ByteStream, limits: Limits) -> Iterator[Found]:
    """Yield the rows of a shard, numbered from 1; `Damage` in place of those that cannot be read.

    A row has the key as `id`, its picture as `image` or several as `images`, the columns of its JSON, and its texts
    under their extensions. The id of the JSON takes precedence over the key.

    Args:
        stream: the archive, unpacked.
        limits: the limits on a row. One that is over them is `Damage`, and the rows after it are read.
    """
    source = _Source(stream)
    damage: Damage | None = None
    number = 0
    row: _Row | None = None
    notes: dict[str, None] = {}  # of members without a row
    try:
        for archive, member in _members(source):
            if member.isdir():
                continue
            name = None if _META.match(member.name) else _NAME.fullmatch(member.name)
            if name is None:
                notes[_NO_KEY] = None
                continue
            if row is None or row.key != name[1]:
                if row is not None:
                    yield row.found(number)
                number += 1
                row = _Row(name[1], limits)
            row.notes |= notes
            notes.clear()
            _add(row, name[2].lower(), archive, member)
    except _End:
        damage = None if source.is_complete else Damage(_CUT)
    except tarfile.TarError as error:
        damage = _damaged(str(error)[:200])
    except (ValueError, RecursionError):
        damage = _damaged("a header cannot be read")
    except OSError as error:
        damage = Damage(f"broken file: it ends early: {error}; copy it again")
    if damage is not None:  # the last row may lack members
        yield Found(max(1, number), damage)
    elif row is not None:
        yield row.found(number)._replace(notes=(*row.notes, *notes))
    else:
        yield Found(0, Damage("no rows: the tar has no file with a name and an extension; give a WebDataset shard"))


def _damaged(what: str) -> Damage:
    return Damage(f"damaged tar: {what}; the rows before it are kept, copy the file again")


def _add(row: _Row, extension: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if not member.isreg() or member.issparse():
        row.notes[_SPECIAL] = None
    elif row.has_room(member.size):
        file = archive.extractfile(member)
        row.add(extension, file.read() if file is not None else b"")


def _members(source: _Source) -> Iterator[tuple[_Archive, tarfile.TarInfo]]:
    """Yield each member, whose data can be read until the next one is asked for."""
    with _Archive.open(
        mode="r|",
        fileobj=cast(Any, source),  # the library only reads it
        bufsize=_PIECE,
        tarinfo=_Header,
        ignore_zeros=True,
        encoding="utf-8",
        errors="backslashreplace",
    ) as archive:
        source.archive = archive
        member = archive.next()
        while member is not None:
            source.expect_data()
            if member.size < 0:
                raise tarfile.ReadError("a member has a negative size")
            archive.forget()
            yield archive, member
            archive.skip_data()
            source.expect_header()
            member = archive.next()


class _Row:
    """Collects the members of one key.

    Attributes:
        key: the key.
        notes: how the members were read, where a user may not expect it.
    """

    def __init__(self, key: str, limits: Limits) -> None:
        self.key = key
        self.notes: dict[str, None] = {}
        self._limits = limits
        self._pictures: list[bytes] = []
        self._columns: dict[str, object] = {}
        self._size = len(key)
        self._count = 0
        self._damage: Damage | None = None

    def has_room(self, size: int) -> bool:
        """Count a member of this size; return whether it is to be read."""
        self._size += size
        self._count += 1
        if self._size > self._limits.row_bytes:
            reason = (
                f"row too long: its members have more than {self._limits.row_bytes:,} bytes; leave out what is no part"
                " of the row, or raise ingest.max_row_bytes"
            )
            self._lose(Damage(reason, limited=True))
        elif self._count > self._limits.row_values:
            self._lose(too_many_values(self._limits))
        return self._damage is None

    def _lose(self, damage: Damage) -> None:
        self._damage = self._damage or damage
        self._pictures.clear()
        self._columns.clear()

    def add(self, extension: str, data: bytes) -> None:
        """Add a member; its extension is in lower case."""
        is_json = extension.rpartition(".")[2] == "json"
        if is_picture(f".{extension}"):
            self._pictures.append(data)
        elif (text := _text(data)) is None:
            if is_json:
                self._lose(Damage("undecodable JSON: a .json member is no UTF-8 text; write it again in UTF-8"))
            else:
                self.notes[_BINARY] = None
        elif is_json:
            self._add_json(extension, text)
        else:
            self._set(_COLUMN.get(extension, extension), text)

    def _add_json(self, extension: str, text: str) -> None:
        value = excess(text, 0, len(text), self._limits) or parse_json(text)
        if isinstance(value, Damage):
            self._lose(value)
        elif isinstance(value, dict):
            for name, cell in value.items():
                self._set(name, cell)
        else:
            self._set(extension, value)

    def _set(self, name: str, value: object) -> None:
        known = self._columns.setdefault(name, value)
        if known is not value and known != value:
            self.notes[_REPEATED] = None

    def found(self, number: int) -> Found:
        """Return the row, or why there is none."""
        if self._damage is not None:
            return Found(number, self._damage, notes=tuple(self.notes))
        row: dict[str, object] = {"id": self.key}
        if self._pictures:
            named = [self._columns.pop(name) for name in ("image", "images") if name in self._columns]
            if named:
                self.notes[_OWN_PICTURES] = None
            row |= {"image": self._pictures[0]} if len(self._pictures) == 1 else {"images": self._pictures}
        if self._columns.get("id") in (None, ""):
            self._columns.pop("id", None)
        return Found(number, row | self._columns, notes=tuple(self.notes))


def _text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


class _End(Exception):
    """The stream has no more data."""


class _Source:
    """The stream of an archive.

    Attributes:
        archive: the archive, once it is open.
    """

    def __init__(self, stream: ByteStream) -> None:
        self.archive: tarfile.TarFile | None = None
        self._stream = stream
        self._taken = 0
        self._last = b""
        self._header_end: int | None = None
        self.expect_header()

    def expect_header(self) -> None:
        """Limit what is read from now on to the size of headers."""
        self._header_end = self._taken + _HEADER_BYTES

    def expect_data(self) -> None:
        """Lift the limit: the data of a member is counted by who reads it."""
        self._header_end = None

    @property
    def is_complete(self) -> bool:
        """Whether the data ended after the empty block that ends an archive."""
        offset = self.archive.offset if self.archive is not None else 0
        return 0 < offset == self._taken and not self._last.strip(b"\0")

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes.

        Raises:
            _End: there are no more. The library would go on to ask for each block that a header promises.
            tarfile.ReadError: a header is too large.
        """
        if self._header_end is not None and self._taken > self._header_end:
            raise tarfile.ReadError("a header is too large")
        data = self._stream.read(size)
        if not data:
            raise _End
        self._taken += len(data)
        self._last = (data if len(data) >= tarfile.BLOCKSIZE else self._last + data)[-tarfile.BLOCKSIZE :]
        return data


class _Archive(tarfile.TarFile):
    """An archive of any number of members."""

    members: list[tarfile.TarInfo]

    def forget(self) -> None:
        """Drop what the library keeps of each member."""
        self.members.clear()
        self.pax_headers = {}

    def skip_data(self) -> None:
        """Go to the end of the last member."""
        if self.fileobj is not None:
            self.fileobj.seek(self.offset)


class _Header(tarfile.TarInfo):
    """The header of a member. One that is damaged is an error: the library would skip it."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the header in a block.

        Raises:
            tarfile.HeaderError: the block is empty, which is the end of an archive.
            tarfile.ReadError: the block is no header, or its values are no sizes of a header.
        """
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if not buf.strip(b"\0"):
                raise
            raise tarfile.ReadError(str(error)) from None
        if header.size < 0 or (header.type in _NAME_TYPES and header.size > _NAME_BYTES):
            raise tarfile.ReadError("a header has an impossible size")
        return header
