"""WebDataset shards: which members are a row, and how shards are read, whatever is wrong with them."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Literal

import pytest

from caslie_ray.dataset._limits import DEFAULT, Limits
from caslie_ray.dataset._shapes import Damage, Found
from caslie_ray.dataset._sources import find_sources
from caslie_ray.dataset._webdataset import read_webdataset, webdataset_format
from tests.dataset.sources import read

SMALL = replace(DEFAULT, row_bytes=4 << 10, row_values=100, nesting=8)
END = bytes(1024)
Member = tuple[str, bytes]
Form = Literal[0, 1, 2]


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, form: Form = tarfile.GNU_FORMAT) -> bytes:
    """A member with its padding."""
    header = tarfile.TarInfo(name)
    header.size, header.type = len(data), kind
    return header.tobuf(form) + data + bytes(-len(data) % 512)


def shard(*members: Member) -> bytes:
    return b"".join(member(name, data) for name, data in members) + END


def found(data: bytes, limits: Limits = DEFAULT) -> list[Found]:
    return list(read_webdataset(io.BytesIO(data), limits))


def values(data: bytes, limits: Limits = DEFAULT) -> list[object]:
    """The rows, and the headings of the reasons of those that cannot be read."""
    return [
        one.value.reason.split(":")[0] if isinstance(one.value, Damage) else one.value for one in found(data, limits)
    ]


def pairs(*keys: str) -> bytes:
    """Members of rows that have a picture and JSON, without the end of the archive."""
    return b"".join(member(f"{key}.jpg", b"JPEG") + member(f"{key}.json", b"{}") for key in keys)


def picture(key: str) -> dict[str, object]:
    return {"id": key, "image": b"JPEG"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_one_key_are_a_row(form: Form) -> None:
    name = f"shoes/{'n' * 90}/ä/0001"
    members = [member(f"{name}.JPG", b"JPEG", form=form), member(f"{name}.txt", "Rote Schühe".encode(), form=form)]
    data = b"".join(members) + END
    assert webdataset_format(data[:1024])
    assert values(data) == [{"id": name, "image": b"JPEG", "text": "Rote Schühe"}]


def test_other_files_are_no_shards() -> None:
    assert not webdataset_format(b"")
    assert not webdataset_format(b"id,image\nustar,a.jpg\n" * 40)


def test_rows_are_numbered_and_end_where_the_key_changes() -> None:
    rows = found(pairs("a", "b.c/d", "a") + END)
    assert [(row.number, row.value) for row in rows] == [(1, picture("a")), (2, picture("b.c/d")), (3, picture("a"))]


def test_several_pictures_are_a_list() -> None:
    data = shard(("a.left.png", b"1"), ("a.title", b"Mug"), ("a.right.png", b"2"), ("b.webp", b"3"))
    assert values(data) == [{"id": "a", "images": [b"1", b"2"], "title": "Mug"}, {"id": "b", "image": b"3"}]


def test_json_gives_columns_and_the_id() -> None:
    cells = {"id": 7, "title": "Mug", "price": {"eur": [1, 2]}}
    data = shard(("a.json", json.dumps(cells).encode()), ("a.png", b"1"), ("b.json", b'\xef\xbb\xbf{"id": null}'))
    assert values(data) == [{"id": 7, "image": b"1", "title": "Mug", "price": {"eur": [1, 2]}}, {"id": "b"}]


def test_pictures_of_the_shard_replace_the_names_in_its_json() -> None:
    cells = b'{"image": "a.png", "images": ["a.png"]}'
    (row, named) = found(shard(("a.json", cells), ("a.png", b"1"), ("b.json", b'{"image": "https://a.example/1.jpg"}')))
    assert row.value == {"id": "a", "image": b"1"}
    assert any("pictures of the shard" in note for note in row.notes)
    assert (named.value, named.notes) == ({"id": "b", "image": "https://a.example/1.jpg"}, ())


def test_what_is_left_out_is_in_the_notes() -> None:
    data = b"".join(
        (
            member("photos", kind=tarfile.DIRTYPE),
            member("._a.jpg", b"mac"),
            member("__meta__/x.json", b"{}"),
            member("a.jpg", b"JPEG"),
            member("a.npy", b"\x93NUMPY\0"),
            member("a.link.jpg", kind=tarfile.SYMTYPE),
            member("a.json", b'{"title": "Mug"}'),
            member("a.title", b"Cup"),
            END,
        )
    )
    (row,) = found(data)
    assert row.value == {"id": "a", "image": b"JPEG", "title": "Mug"}
    heads = [note.split(":")[0] for note in row.notes]
    assert heads == [
        "members without a key left out",
        "members that are neither pictures nor UTF-8 text left out",
        "links and special files left out",
        "members left out",
    ]


def test_a_link_to_a_file_of_the_machine_gives_no_data(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    header = tarfile.TarInfo("a.txt")
    header.type, header.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.txt")
    assert values(header.tobuf() + END) == [{"id": "a"}]


@pytest.mark.parametrize(
    ("name", "data", "heading", "limited"),
    [
        ("json", b'{"title": ', "invalid JSON", False),
        ("json", b'{"title": "\xff"}', "undecodable JSON", False),
        ("json", b"[" * 9, "invalid JSON", True),
        ("json", b"[" + b"1," * 200 + b"1]", "row too large", True),
        ("txt", bytes(4 << 10), "row too long", True),
    ],
)
def test_a_damaged_row_costs_itself(name: str, data: bytes, heading: str, limited: bool) -> None:
    rows = found(pairs("a", "b") + member(f"b.{name}", data) + pairs("c") + END, SMALL)
    assert [row.number for row in rows] == [1, 2, 3]
    assert (rows[0].value, rows[2].value) == (picture("a"), picture("c"))
    damage = rows[1].value
    assert isinstance(damage, Damage)
    assert (damage.reason.split(":")[0], damage.limited) == (heading, limited)


def test_the_limits_hold_for_all_members_of_a_row_together() -> None:
    parts = [(f"a.{number}.txt", b"x" * 1000) for number in range(5)]
    many = [(f"b.{number}.txt", b"") for number in range(101)]
    long, numerous, good = found(shard(*parts, *many, ("c.jpg", b"JPEG")), SMALL)
    assert isinstance(long.value, Damage)
    assert "raise ingest.max_row_bytes" in long.value.reason
    assert isinstance(numerous.value, Damage)
    assert "raise ingest.max_row_values" in numerous.value.reason
    assert good.value == picture("c")


def test_a_large_member_is_not_read_into_memory() -> None:
    size = 1 << 40
    header = tarfile.TarInfo("b.jpg")
    header.size = size
    good, cut = values(pairs("a") + header.tobuf() + b"data", SMALL)
    assert (good, cut) == (picture("a"), "truncated file")


@pytest.mark.parametrize("kept", [512, 700, 1024, 1600, 2000, 2048])
def test_of_a_shard_that_is_cut_the_complete_rows_are_kept(kept: int) -> None:
    start, rest = pairs("a", "b"), pairs("c")
    rows = found(start + rest[:kept])
    assert [row.value for row in rows[:2]] == [picture("a"), picture("b")]
    assert [(row.number, str(row.value).count("truncated file")) for row in rows[2:]] == [(3, 1)]


def test_the_last_row_of_a_shard_without_an_end_may_lack_members() -> None:
    assert values(pairs("a", "b")) == [picture("a"), "truncated file"]


def test_a_header_that_is_damaged_ends_the_shard_with_a_reason() -> None:
    bad = bytearray(pairs("c"))
    bad[150] ^= 1
    assert values(pairs("a", "b") + bytes(bad) + END) == [picture("a"), "damaged tar"]


def test_archives_after_each_other_are_read_in_full() -> None:
    assert values(pairs("a") + bytes(10240) + pairs("b") + bytes(300 << 10)) == [picture("a"), picture("b")]


def hostile() -> Iterator[tuple[str, bytes]]:
    """Headers that make the library read, loop or recurse without a limit."""
    negative = tarfile.TarInfo("b.jpg")
    negative.size = -512
    yield "negative size", negative.tobuf(tarfile.GNU_FORMAT)
    for name, kind in (("long name", tarfile.GNUTYPE_LONGNAME), ("pax header", tarfile.XHDTYPE)):
        yield name, member("x", b"n" * (1 << 20), kind) + member("b.jpg")
    yield "many headers", member("x", pax(path="b.jpg"), tarfile.XGLTYPE) * 5000 + member("b.jpg")
    yield "huge number", member("x", b"9" * 5000 + b" path=", tarfile.XHDTYPE) + member("b.jpg")
    sparse = pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    yield "sparse map", member("x", sparse, tarfile.XHDTYPE) + member("b.jpg", b"999999\n" + b"1\n" * (2 << 20))


def pax(**records: str) -> bytes:
    """Records of a pax header, each with its length."""
    lines = []
    for name, text in records.items():
        rest = f" {name}={text}\n"
        lines.append(f"{len(rest) + 2}{rest}")
        assert len(lines[-1]) == len(rest) + 2
    return "".join(lines).encode()


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in hostile()])
def test_a_hostile_header_is_one_reject(data: bytes) -> None:
    good, bad = found(pairs("z", "a") + data + END)
    assert good.value == picture("z")
    assert isinstance(bad.value, Damage)
    assert re.match(r"damaged tar: a header (is too large|has an impossible size|cannot be read);", bad.value.reason)


def test_a_tar_without_rows_is_a_reject() -> None:
    assert values(shard(("README", b"text"))) == ["no rows"]


def test_memory_does_not_grow_with_the_shard() -> None:
    class Endless:
        """A stream of many rows, made as it is read."""

        def __init__(self, rows: int) -> None:
            self._parts = chain(repeat(pairs("a", "b"), rows), [END])
            self._left = b""

        def read(self, size: int, /) -> bytes:
            self._left = self._left or next(self._parts, b"")
            data, self._left = self._left[:size], self._left[size:]
            return data

    def peak(rows: int) -> int:
        tracemalloc.start()
        count = sum(1 for _ in read_webdataset(Endless(rows), DEFAULT))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 2 * rows
        return used

    assert peak(1000) < 2 * peak(100)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_shards_of_a_folder_are_sources(tmp_path: Path, name: str) -> None:
    cells = json.dumps({"task": "t0", "input": "x"}).encode()
    data = shard(("0.json", cells), ("0.jpg", b"JPEG"))
    packed = data if name.endswith("tar") else gzip.compress(data)
    (tmp_path / name).write_bytes(packed)
    (tmp_path / "photo.jpg").write_bytes(b"JPEG")
    files, skipped = find_sources([str(tmp_path)])
    assert ([Path(file.name).name for file in files], skipped.others) == ([name], 1)
    assert [record.row and record.row["task"] for record in read(tmp_path / name, packed)] == ["t0"]
    if packed is not data:
        cut = read(tmp_path / name, packed[: len(packed) - 12])
        assert [(record.number, (record.reason or "").split(":")[0]) for record in cut] == [(1, "broken file")]
