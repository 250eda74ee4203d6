"""Delimited text: which files are tables, and how their rows are read, whatever is wrong with some of them."""

from __future__ import annotations

import csv
import gzip
import io
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from caslie_ray.dataset import _delimited_records
from caslie_ray.dataset._delimited import FEWER, NUL, STRAY, TWICE, read_delimited
from caslie_ray.dataset._delimited_records import Dialect, Records
from caslie_ray.dataset._format import delimited_format
from caslie_ray.dataset._limits import DEFAULT, Limits
from caslie_ray.dataset._shapes import Damage, Found
from caslie_ray.dataset._text_stream import PIECE, TextStream
from tests.dataset.sources import read, reviews, sentiment

SMALL = replace(DEFAULT, row_bytes=1 << 10)


class Pieces:
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = io.BytesIO(data)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._data.read(min(size, self._size))


def found(data: str | bytes, limits: Limits = DEFAULT, piece: int = PIECE, name: str = "a.csv") -> list[Found]:
    given = data if isinstance(data, bytes) else data.encode()
    dialect = delimited_format(given[: 1 << 18], None, name)
    assert dialect is not None
    return list(read_delimited(TextStream(Pieces(given, piece), "utf-8"), dialect, limits))


def rows(data: str | bytes, limits: Limits = DEFAULT, piece: int = PIECE) -> list[object]:
    """The cells of each row that was read, the heading of the reason of each other one."""
    values = [one.value for one in found(data, limits, piece)]
    return [
        value.reason.split(":")[0]
        if isinstance(value, Damage)
        else list(value.values())
        if isinstance(value, dict)
        else value
        for value in values
    ]


def table(reviews: list[str], delimiter: str = ",") -> str:
    """A table in the released format."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(sentiment(0)), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(sentiment(number, input=f'{{"review": "{text}"}}') for number, text in enumerate(reviews))
    return sink.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "export"])
def test_the_delimiter_is_detected(delimiter: str, name: str) -> None:
    lines = ["id,name,price", '1,"Mug; blue, large | new\t",2.50', "2,Bowl,1", "3,,"]
    text = "\n".join(line.replace(",", delimiter) if '"' not in line else line for line in lines)
    if delimiter != ",":
        text = text.replace('1,"Mug', f'1{delimiter}"Mug').replace('",2', f'"{delimiter}2')
    assert delimited_format(text.encode(), None, name) == Dialect(delimiter)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_first_line_may_name_the_delimiter(delimiter: str) -> None:
    text = f"sep={delimiter}\r\nname{delimiter}price\r\nMug{delimiter}1\r\n"
    assert found(text, name="export") == [Found(1, {"name": "Mug", "price": "1"})]


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1, "b": 2}]',
        '{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n',
        "<rss><channel><item>a,b</item></channel></rss>",
        "<!doctype html><html><body>a, b</body></html>",
        "PAR1,a\n1,2",
        "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
        "\x89PNG\r\n\x1a\n,\x00\x01",
        "",
        " \n\n",
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_other_formats_are_no_tables_whatever_their_name(text: str, name: str) -> None:
    assert delimited_format(text.encode("latin-1"), None, name) is None


@pytest.mark.parametrize(
    "text",
    [
        "Dear Anna, I hope you are well\nI am fine, thanks\nBest, Tom\n",
        "We bought this mug, and it broke.\nNobody answered, so we sent it back.\n",
        "A single line, with a comma",
        "# Title\n\nSome text; more text\n",
        "INSERT INTO t VALUES (1,'a');\nINSERT INTO t VALUES (2,'b');\n",
        "1,2,3\n4,5,6\n",
        "word\nanother\n",
        "a,b\n1,2,3\n4\n5,6,7,8\n",
    ],
)
def test_text_that_is_no_table_is_not_taken_for_one(text: str) -> None:
    assert delimited_format(text.encode(), None, "notes.txt") is None


def test_a_table_needs_a_header() -> None:
    """Its first row would be lost otherwise."""
    for line in ("G1,Mug,https://example.com/a.jpg", "G1,Mug,images/a.jpg", "1,2.50,3"):
        assert delimited_format(f"{line}\n{line}\n".encode(), None, "a.csv") is None


def test_the_name_of_a_file_may_make_it_a_table() -> None:
    column = "image_url\nhttps://example.com/1.jpg\nhttps://example.com/2.jpg\n"
    assert delimited_format(column.encode(), None, "a.txt") is None
    assert rows(column) == [["https://example.com/1.jpg"], ["https://example.com/2.jpg"]]
    header = b"name;price\n"
    assert delimited_format(header, None, "a") is None
    assert delimited_format(header, None, "a.csv.gz") == Dialect(";")
    ragged = "name,text\n1,a,b\n2,c,d\n3,e\n"
    assert rows(ragged) == ["row with more cells than the header"] * 2 + [["3", "e"]]


@pytest.mark.parametrize("piece", [PIECE, 1, 7])
def test_quoted_cells_hold_delimiters_quotes_and_line_breaks(piece: int) -> None:
    urls = ",".join(f"https://example.com/{number}.jpg" for number in range(20))
    text = f'name,text,images\nMug,"a ""large"" mug,\r\nblue\n\nand round","{urls}"\r\n"Bowl", "b" ,\n5" nail,x,y\n'
    assert rows(text, piece=piece) == [
        ["Mug", 'a "large" mug,\r\nblue\n\nand round', urls],
        ["Bowl", "b ", ""],
        ['5" nail', "x", "y"],
    ]


def test_rows_are_numbered_without_the_header_and_empty_lines() -> None:
    text = '\n,,\nname,text\n\nMug,"a\nb"\n,\n\r\nBowl,c\nbad,1,2\n'
    assert [one.number for one in found(text)] == [1, 3, 4]


def test_old_line_breaks_of_the_mac() -> None:
    assert rows('name,text\rMug,"a\rb"\rBowl,c\r') == [["Mug", "a\rb"], ["Bowl", "c"]]
    mixed = rows("name,text\nMug,a\rBowl,b\nCup,c\n")
    assert mixed == ["line break outside of quotes", ["Cup", "c"]]


def test_a_column_that_occurs_twice_is_kept() -> None:
    first, second = found("Name,Name,Name (2),Name,\nMug,a,b,c,\nBowl,d,e,f,\n")
    assert first.value == {"Name": "Mug", "Name (3)": "a", "Name (2)": "b", "Name (4)": "c"}
    assert (first.notes, second.notes) == ((TWICE,), ())


def test_a_column_without_a_name_is_kept_where_it_has_cells() -> None:
    (first, second) = found(",name,\ufeff , price ,,\n0,Mug,,1,,\n1,Bowl,x,2\n")
    assert first.value == {"column 1": "0", "name": "Mug", "price": "1"}
    assert second.value == {"column 1": "1", "name": "Bowl", "column 3": "x", "price": "2"}


def test_rows_of_another_length() -> None:
    more, empty, fewer = found("a,b,c\n1,2,3,4,5,,\n1,2,3,,\n1\n")
    assert isinstance(more.value, Damage)
    assert more.value.reason.startswith("row with more cells than the header: 5 of 3; ")
    assert (empty.value, empty.notes) == ({"a": "1", "b": "2", "c": "3"}, ())
    assert (fewer.value, fewer.notes) == ({"a": "1", "b": "", "c": ""}, (FEWER,))


def test_a_header_in_the_middle_is_no_row() -> None:
    assert rows("a,b\n1,2\na,b\n3,4\n") == [["1", "2"], "header in the place of a row", ["3", "4"]]


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "sep=;\n", "sep=;\na;b", "a,b\n,\n\n,"])
def test_a_table_without_rows_is_one_reject(text: str) -> None:
    (one,) = found(text)
    assert one.number == 0
    assert "empty table" in str(one.value)


@pytest.mark.parametrize("piece", [PIECE, 1])
def test_a_row_over_the_limit_costs_only_itself(piece: int) -> None:
    long = "x" * 3000
    for cell in (long, f'"{long}"', f'"{long},\n{long}""\n{long}"', f'"{long}" {long}'):
        records = found(f'a,b\n1,2\n3,{cell}\n"5",6\n', SMALL, piece)
        assert [one.number for one in records] == [1, 2, 3]
        assert (records[0].value, records[2].value) == ({"a": "1", "b": "2"}, {"a": "5", "b": "6"})
        damage = records[1].value
        assert isinstance(damage, Damage)
        assert damage.limited
        assert damage.reason.startswith("row too long: ")
        assert "ingest.max_row_bytes" in damage.reason


def test_a_cell_of_many_megabytes_is_read_or_skipped() -> None:
    large = b'a,b\n1,"' + b"x" * (5 << 20) + b'\n"\n3,4\n'
    assert [len(one.value["b"]) for one in found(large) if isinstance(one.value, dict)] == [(5 << 20) + 1, 1]
    assert rows(large, replace(DEFAULT, row_bytes=1 << 20)) == ["row too long", ["3", "4"]]


def test_a_cell_over_the_limit_is_not_kept_in_memory() -> None:
    large = b'a,b\n1,"' + b"x" * (30 << 20) + b'"\n3,4\n'
    limits = replace(DEFAULT, row_bytes=1 << 20)
    tracemalloc.start()
    try:
        assert rows(large, limits) == ["row too long", ["3", "4"]]
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_limits_of_columns_and_cells() -> None:
    wide = ",".join(f"c{number}" for number in range(30))
    (one,) = found(f"{wide}\n{wide}x\n", replace(DEFAULT, columns=20))
    assert one.number == 0
    assert isinstance(one.value, Damage)
    assert one.value.limited
    assert "ingest.max_columns" in one.value.reason
    limits = replace(DEFAULT, row_values=100)
    commas = "," * 200
    assert rows(f'a,b\n1,{commas}\n2,"{commas}"\n', limits) == ["row too large"] * 2


@pytest.mark.parametrize("piece", [PIECE, 1, 9])
def test_an_unclosed_quote_costs_only_its_row(piece: int) -> None:
    """`csv` alone would put the rows after it into its cell, up to the next quote or the end of the file."""
    for end in ("", '4,"good",5\n', '4,"a\nb",5\n'):
        records = found(f'a,b,c\n1,2,3\n1,"no end,3\n2,x,y\n\n3,x,y\n{end}', piece=piece)
        values = [one.value for one in records]
        assert isinstance(values[1], Damage)
        assert values[1].reason.startswith("unclosed quote: ")
        assert "line 3" in values[1].reason
        assert values[2:4] == [{"a": "2", "b": "x", "c": "y"}, {"a": "3", "b": "x", "c": "y"}]
        assert [one.number for one in records] == list(range(1, len(records) + 1))
        assert len(records) == (5 if end else 4)


def test_lines_after_an_unclosed_quote_must_be_full_rows() -> None:
    text = 'a,b,c\n1,"<p>\n<b class="x">\n</b>",3\n2,x,y\n'
    assert rows(text) == ["unclosed quote", "part of a damaged row", "part of a damaged row", ["2", "x", "y"]]


def test_quotes_that_are_not_doubled_are_noted() -> None:
    good, bad = found('a,b\n1,"a 5" nail"\n"a "b, c" d",2\n')
    assert good.notes == (STRAY,)
    assert good.value == {"a": "1", "b": 'a 5 nail"'}
    assert "text after a closing quote" in str(bad.value)


def test_nul_characters_are_left_out() -> None:
    (one,) = found("name,text\n1,a text with x\0y\n")
    assert (one.value, one.notes) == ({"name": "1", "text": "a text with xy"}, (NUL,))


def test_lines_are_read_again_a_limited_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line opens a quote that the next one closes and opens again, up to the end of the file."""
    monkeypatch.setattr(_delimited_records, "_REREAD", 100_000)
    data = b'x","\n' * 2000
    found = list(Records(TextStream(io.BytesIO(data), "utf-8"), Dialect(","), 1 << 30))
    assert 5 < len(found) < 20
    assert all(record.is_unclosed for record in found)


def test_records_are_those_of_csv_in_pieces_of_any_size() -> None:
    rng = random.Random(0)
    compared = 0
    for _ in range(5000):
        text = "".join(rng.choice('aa,,"""\n\n ') for _ in range(rng.randint(1, 14)))
        records = [
            list(Records(TextStream(Pieces(text.encode(), size), "utf-8"), Dialect(","), 1 << 10)) for size in (100, 1)
        ]
        assert records[0] == records[1], text
        if any(record.damage for record in records[0]):
            continue
        compared += 1
        expected = [cells for cells in csv.reader(io.StringIO(text, newline=""), skipinitialspace=True) if any(cells)]
        assert [cells for record in records[0] if any(cells := record.cells(","))] == expected, text
    assert compared > 1000


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_in_every_encoding(tmp_path: Path, encoding: str, delimiter: str) -> None:
    texts = ["Größe paßt", "plain", "„schön“ – 5 €"]
    data = table(texts, delimiter).encode(encoding)
    for name, content in (("a.csv", data), ("a.csv.gz", gzip.compress(data)), ("export", data)):
        records = read(tmp_path / name, content)
        assert reviews(records) == texts
        assert [record.notes for record in records] == [
            ("cp1252",) if encoding == "cp1252" and not text.isascii() else () for text in texts
        ]


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    data = table(["Отличная кружка", "plain"]).encode("cp1251")
    assert reviews(read(tmp_path / "a.csv", data)) == ["undecodable text", "plain"]
    assert reviews(read(tmp_path / "a.csv", data, "cp1251")) == ["Отличная кружка", "plain"]


def test_a_row_in_another_encoding_is_a_reject(tmp_path: Path) -> None:
    lines = table(["naïve", "größer", "Öl", "a"]).encode().split(b"\r\n")
    lines[2] = lines[2].decode().encode("cp1252")
    records = read(tmp_path / "a.csv", b"\r\n".join(lines))
    assert reviews(records) == ["naïve", "undecodable text", "Öl", "a"]
    assert records[1].location == f"{tmp_path / 'a.csv'}:2"


def test_a_header_that_cannot_be_decoded_is_one_reject(tmp_path: Path) -> None:
    (record,) = read(tmp_path / "a.csv", "задача;название\n1;2\n".encode("cp1251"))
    assert (record.reason or "").startswith("undecodable text: ")


def test_a_cut_gzip_file_keeps_the_rows_before_the_cut(tmp_path: Path) -> None:
    noise = [random.Random(number).randbytes(40).hex() for number in range(20)]
    packed = gzip.compress(table(noise).encode())
    records = read(tmp_path / "a.csv.gz", packed[: len(packed) // 2])
    *before, last = reviews(records)
    assert before == noise[: len(before)]
    assert before
    assert last == "broken file"


def test_a_table_in_a_file_of_another_name_is_read(tmp_path: Path) -> None:
    """The content decides, not the name."""
    assert reviews(read(tmp_path / "a.json", table(["one", "two"]))) == ["one", "two"]
