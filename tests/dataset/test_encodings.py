"""Text in the encodings that files really have: no letter is lost or changed without a word."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from caslie_ray.profiles import ProfileError, load_profile
from tests.dataset.sources import read, reviews, sentiment

BOM = b"\xef\xbb\xbf"


def line(text: str, encoding: str = "utf-8") -> bytes:
    return json.dumps(sentiment(0, input={"review": text}), ensure_ascii=False).encode(encoding) + b"\n"


GERMAN = ["Größe paßt", "plain", "NESCAFÉ® gut", "„schön“ – 5 €"]


@pytest.mark.parametrize("layout", ["lines", "array", "spread", "data"])
def test_cp1252_keeps_its_letters_and_is_noted(tmp_path: Path, layout: str) -> None:
    rows = [sentiment(0, input={"review": text}) for text in GERMAN]
    text = {
        "lines": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "array": json.dumps(rows, ensure_ascii=False),
        "spread": json.dumps(rows, ensure_ascii=False, indent=1),
        "data": json.dumps({"data": rows}, ensure_ascii=False),
    }[layout]
    records = read(tmp_path / "a.json", text.encode("cp1252"))
    assert reviews(records) == GERMAN
    assert ["cp1252" in record.notes for record in records] == [True, False, True, True]


def test_utf8_with_a_broken_row_stays_utf8(tmp_path: Path) -> None:
    """A sequence that was cut, and a line from another file: two rejects; the others keep their letters."""
    cut = line("cut é").replace(b"\xa9", b"")
    data = b"".join([line("naïve"), cut, line("größer"), line("Öl", "cp1252"), line("a")])
    records = read(tmp_path / "a.jsonl", data)
    assert reviews(records) == ["naïve", "undecodable text", "größer", "undecodable text", "a"]
    assert "ingest.encoding" in (records[1].reason or "")
    array = b"[" + b",".join(data.strip().split(b"\n")) + b"]"
    assert reviews(read(tmp_path / "b.json", array)) == reviews(records)


def test_an_encoding_that_cannot_be_determined_is_not_guessed(tmp_path: Path) -> None:
    """Bytes that cp1252 would turn into other letters."""
    for encoding, text in (
        ("cp1251", "Отличная кружка"),
        ("shift_jis", "とても良いカップ"),
        ("cp1253", "Πολύ καλό"),
        ("cp1250", "Zażółć gęślą jaźń"),
    ):
        records = read(tmp_path / "a.jsonl", line(text, encoding) + line("plain"))
        assert reviews(records) == ["undecodable text", "plain"], encoding
        named = read(tmp_path / "a.jsonl", line(text, encoding) + line("plain"), encoding)
        assert reviews(named) == [text, "plain"]


def test_the_named_encoding_refuses_what_is_not_in_it(tmp_path: Path) -> None:
    records = read(tmp_path / "a.jsonl", line("Größe", "cp1252") + line("plain"), "utf-8")
    assert reviews(records) == ["undecodable text", "plain"]
    records = read(tmp_path / "a.jsonl", line("a") + line("x").replace(b"x", b"\x80") + line("b"), "shift_jis")
    assert reviews(records) == ["a", "undecodable text", "b"]
    assert reviews(read(tmp_path / "a.jsonl", BOM + line("naïve"), "cp1252")) == ["naïve"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("marked", [False, True])
def test_utf16_and_utf32_with_and_without_a_mark(tmp_path: Path, encoding: str, marked: bool) -> None:
    mark = "\ufeff".encode(encoding) if marked else b""
    records = read(tmp_path / "a.jsonl", mark + line("Größe").decode().encode(encoding))
    assert reviews(records) == ["Größe"]


def test_byte_order_marks_between_files(tmp_path: Path) -> None:
    one, two = line("one"), line("two")
    assert reviews(read(tmp_path / "a.jsonl", BOM + one + BOM + two)) == ["one", "two"]
    assert reviews(read(tmp_path / "a.json", BOM + one + BOM + BOM + two + BOM)) == ["one", "two"]
    packed = gzip.compress(BOM + one) + gzip.compress(BOM + two)
    assert reviews(read(tmp_path / "a.jsonl.gz", packed)) == ["one", "two"]
    # Without a line break at the end of the first file.
    assert reviews(read(tmp_path / "b.jsonl", BOM + one.strip() + BOM + two)) == ["one", "two"]
    array = b"[" + one + b"]\n"
    assert reviews(read(tmp_path / "c.json", BOM + array + BOM + array.replace(b"one", b"two"))) == ["one", "two"]
    assert reviews(read(tmp_path / "d.json", BOM + b"[" + one + b"," + BOM + two + b"]")) == ["one", "two"]
    sixteen = one.decode().encode("utf-16") + two.decode().encode("utf-16")
    assert reviews(read(tmp_path / "e.jsonl", sixteen)) == ["one", "two"]
    inside = line("a\ufeffb")
    assert reviews(read(tmp_path / "f.jsonl", inside)) == ["a\ufeffb"]


def test_a_mark_before_the_first_column(tmp_path: Path) -> None:
    """A CSV file with a byte order mark, converted by a reader that kept it in the first column's name."""
    text = json.dumps(sentiment(1)).replace('"task"', '"\\ufefftask"')
    (record,) = read(tmp_path / "a.jsonl", text)
    assert record.row is not None
    assert record.row["task"] == "sentiment_analysis"


def test_supplementary_letters_written_as_surrogates(tmp_path: Path) -> None:
    """CESU-8, as some databases and Java programs write it."""
    data = line("good 😀").replace("😀".encode(), "\ud83d\ude00".encode("utf-8", "surrogatepass"))
    (record,) = read(tmp_path / "a.jsonl", data)
    assert reviews([record]) == ["good 😀"]
    assert record.notes == ("CESU-8",)


@pytest.mark.parametrize("name", ["no-such-codec", "rot13", "base64", "undefined"])
def test_a_setting_that_is_no_encoding_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match=name):
        load_profile("mini", [f"ingest.encoding={name}"])
    assert load_profile("mini", ["ingest.encoding=latin-1"]).ingest.encoding == "latin-1"
    assert load_profile("mini").ingest.encoding is None


@pytest.mark.parametrize("layout", ["lines", "array", "data"])
def test_utf8_rows_in_a_cp1252_file_keep_their_letters(tmp_path: Path, layout: str) -> None:
    """Files that were put together: some bytes of UTF-8 are undefined in cp1252, others are two wrong letters there."""
    old = [line("Größe paßt", "cp1252").strip()] * 20
    texts = ["so “good”", "A 12” mug", "ÁÍÏÐ", "naïve", "NESCAFÉ® and NESCAFÉ®", "Ő"]
    new = [line(text, "cp1252" if "®" in text else "utf-8").strip() for text in texts]
    rows = [*old, *new]
    data = {
        "lines": b"\n".join(rows),
        "array": b"[" + b",".join(rows) + b"]",
        "data": b'{"data": [' + b",".join(rows) + b"]}",
    }[layout]
    records = read(tmp_path / "a.json", data)
    assert reviews(records) == ["Größe paßt"] * 20 + texts
    assert ["cp1252" in record.notes for record in records[20:]] == [False, False, False, False, True, False]
    assert "UTF-8 in a cp1252 file" in records[-1].notes


def test_a_row_in_two_encodings_is_a_reject(tmp_path: Path) -> None:
    old = line("Größe paßt", "cp1252")
    both = line("größer ¤", "cp1252").replace(b"\xa4", "”".encode())
    records = read(tmp_path / "a.jsonl", old * 20 + both + old)
    assert reviews(records) == ["Größe paßt"] * 20 + ["undecodable text", "Größe paßt"]


@pytest.mark.parametrize("encoding", ["idna", "punycode"])
def test_an_encoding_that_fails_affects_only_its_own_file(tmp_path: Path, encoding: str) -> None:
    """These codecs of Python take no error handler, and raise UnicodeError for any byte beyond ASCII."""
    (record,) = read(tmp_path / "a.jsonl", line("größer"), encoding)
    assert record.row is None
    assert (record.reason or "").startswith("unreadable text: ")
    assert "ingest.encoding" in (record.reason or "")
