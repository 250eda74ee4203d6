"""Catalogues of shops: products by their own ids, in the formats that shops export."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset import IngestSummary, ingest, preview_prompts
from caslie_ray.errors import JobError
from caslie_ray.jobs import ingest_job
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.storage.run import Run, open_run
from tests.dataset.sources import sentiment
from tests.dataset.test_unusable import arguments
from tests.dataset.world import png

pytestmark = pytest.mark.usefixtures("ray_cluster")

TITLES = ("Red mug", "Blue lamp", "Green chair")


def profile(*settings: str) -> Profile:
    return load_profile("mini", ["ingest.chunk_rows=2", "storage.partition_digits=1", *settings])


def photos(folder: Path, count: int = 6) -> list[str]:
    """Draw different pictures; return their paths below the folder."""
    (folder / "img").mkdir(exist_ok=True)
    for number in range(count):
        (folder / "img" / f"{number}.png").write_bytes(png(number))
    return [f"img/{number}.png" for number in range(count)]


def table(rows: Sequence[Sequence[str]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue()


def bring(folder: Path, name: str, data: str | bytes, *settings: str) -> tuple[Run, IngestSummary]:
    source = folder / name
    source.write_bytes(data.encode() if isinstance(data, str) else data)
    run = open_run(str(folder / "run"))
    return run, ingest(run, [str(source)], profile(*settings), quiet=True)


def products(run: Run) -> dict[str, dict[str, Any]]:
    return {row["product_id"]: row for row in run.read("products").to_pylist()}


def texts(row: dict[str, Any]) -> dict[str, str]:
    return {pair["field"]: pair["text"] for pair in row["texts"]}


def plain(images: Sequence[str]) -> list[list[str]]:
    rows = [[f"p{number}", title, image] for number, (title, image) in enumerate(zip(TITLES, images, strict=False))]
    return [["id", "title", "image"], *rows]


def test_a_table_of_products_becomes_products_and_their_views(tmp_path: Path) -> None:
    run, summary = bring(tmp_path, "shop.csv", table(plain(photos(tmp_path))))
    found = products(run)
    assert (summary.products, summary.samples, summary.images, summary.views) == (3, 0, 3, 3)
    assert summary.rejects == {"sample": 0, "image": 0}
    assert [texts(found[f"p{number}"])["title"] for number in range(3)] == list(TITLES)
    views = {view["view_id"]: view for view in run.read("views").to_pylist()}
    for row in found.values():
        (shown,) = row["views"]
        view = views[shown["view_id"]]
        assert (shown["context"], shown["place"], view["task"], row["gone"]) == ("product", 1, "product", False)
        assert view["image_id"] == shown["image_id"]
        assert texts(row)["title"] in view["caption_prompt"]
        assert "{{caption}}" in view["quality_prompt"]
        title = texts(row)["title"]
        assert title in [view["caption_prompt"][start:end] for start, end in view["caption_fields"]]


def test_every_context_has_its_own_views_of_the_same_images(tmp_path: Path) -> None:
    images = photos(tmp_path)
    rows = [["id", "title", "images"], ["p0", "Red mug", f"{images[0]}, {images[1]}, {images[2]}"]]
    own = '{caption: "Name the colour of {{title}}.", quality: "Is it one? {{caption}} Answer yes or no.", images: 2}'
    run, summary = bring(tmp_path, "shop.csv", table(rows), f"contexts={{product: {{}}, colour: {own}}}")
    (row,) = products(run).values()
    assert [(view["context"], view["place"]) for view in row["views"]] == [("product", 1), ("colour", 1), ("colour", 2)]
    assert (summary.images, summary.views, summary.references) == (2, 3, 3)
    assert len({view["view_id"] for view in row["views"]}) == 3
    assert row["views"][0]["image_id"] == row["views"][1]["image_id"]


def test_the_same_products_in_other_formats(tmp_path: Path) -> None:
    images = photos(tmp_path)
    rows = plain(images)
    records = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    items = "".join(
        f"<item><g:id>{row['id']}</g:id><title>{row['title']}</title><g:image_link>{row['image']}</g:image_link></item>"
        for row in records
    )
    feed = f'<rss xmlns:g="http://base.google.com/ns/1.0"><channel>{items}</channel></rss>'
    files: dict[str, str | bytes] = {
        "shop.csv": table(rows),
        "shop.tsv": table(rows, "\t"),
        "semicolons.csv": "sep=;\r\n" + table(rows, ";"),
        "shop.jsonl": "\n".join(map(json.dumps, records)),
        "shop.json": json.dumps(records),
        "utf16.csv": table(rows).encode("utf-16"),
        "shop.csv.gz": gzip.compress(table(rows).encode()),
        "feed.xml": feed,
    }
    expected = None
    for number, (name, data) in enumerate(files.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        photos(folder)
        run, summary = bring(folder, name, data)
        assert (summary.products, sum(summary.rejects.values())) == (3, 0), name
        found = [(key, texts(row)["title"], row["views"]) for key, row in sorted(products(run).items())]
        expected = expected or found
        assert found == expected, name


def test_rows_of_one_shopify_product_are_joined(tmp_path: Path) -> None:
    images = photos(tmp_path)
    header = ["Handle", "Title", "Body (HTML)", "Image Src", "Image Position", "Variant SKU"]
    rows = [
        header,
        ["red-mug", "Red mug", "<p>A <b>mug</b>.</p><ul><li>Stoneware</li></ul>", images[1], "2", "S1"],
        ["red-mug", "", "", images[0], "1", ""],
        ["lamp", "Blue lamp", "", images[2], "1", "L1"],
    ]
    run, summary = bring(tmp_path, "products_export.csv", table(rows), "contexts={product: {images: all}}")
    found = products(run)
    assert (summary.products, summary.rows) == (2, 2)
    assert [view["source"] for view in found["red-mug"]["views"]] == images[:2]
    description = texts(found["red-mug"])["description"]
    assert "Stoneware" in description
    assert "<" not in description


def test_bad_rows_cost_themselves(tmp_path: Path) -> None:
    good = photos(tmp_path)[0]
    rows = [
        ["id", "title", "image"],
        ["a", "Good", good],
        ["", "No id", good],
        ["b", "Lost", "img/none.png"],
        ["c", "No image", ""],
        ["a", "The same id", good],
        ["d", "", good],
        ["a", "Good", good],
    ]
    run, summary = bring(tmp_path, "shop.csv", table(rows))
    found = products(run)
    assert sorted(found) == ["a", "b", "c", "d"]
    assert texts(found["a"])["title"] == "Good"
    assert (summary.products, summary.products_without_image, summary.lost_references, summary.repeats) == (4, 1, 1, 1)
    assert found["c"]["views"] == []
    (lost,) = found["b"]["views"]
    assert (lost["source"], lost["view_id"]) == ("img/none.png", None)
    assert lost["reason"]
    rejects = {row["source_id"]: row for row in run.read("rejects").to_pylist()}
    assert rejects[None]["reason"].startswith("product without an id")
    assert rejects[None]["location"].endswith(":2")
    assert rejects["a"]["reason"].startswith("a product id twice")
    assert (rejects["b"]["kind"], rejects["b"]["source"]) == ("image", "img/none.png")
    assert summary.products + summary.repeats + summary.rejects["sample"] == len(rows) - 1


def test_columns_of_another_language_are_named_with_keys(tmp_path: Path) -> None:
    images = photos(tmp_path)
    rows = [["Artikelnummer", "Bezeichnung", "Bild"], ["G1", "Tasse für Tee", images[0]]]
    data = table(rows, ";").encode("cp1252")
    source = tmp_path / "artikel.csv"
    source.write_bytes(data)
    with pytest.raises(JobError):
        ingest_job(arguments(tmp_path, profile(), str(source)))
    keys = "ingest.keys={id: Artikelnummer, images: Bild, fields: {Bezeichnung: title}}"
    run, summary = bring(tmp_path, "artikel.csv", data, keys)
    assert texts(products(run)["G1"])["title"] == "Tasse für Tee"
    assert "cp1252" in summary.read_as


def test_a_context_without_its_column_is_an_error_that_names_the_columns(tmp_path: Path) -> None:
    source = tmp_path / "shop.csv"
    source.write_text(table(plain(photos(tmp_path))))
    with pytest.raises(JobError, match="search needs query; there are") as refused:
        ingest_job(arguments(tmp_path, profile("contexts={search: {}}"), str(source)))
    assert "title" in str(refused.value)


def test_products_that_are_gone_are_marked(tmp_path: Path) -> None:
    images = photos(tmp_path)
    rows = plain(images)
    run, _ = bring(tmp_path, "shop.csv", table(rows))
    before = products(run)
    changed = [rows[0], rows[1], ["p1", "Yellow lamp", images[1]], ["p9", "New", images[4]]]
    run, summary = bring(tmp_path, "shop.csv", table(changed))
    found = products(run)
    assert (summary.products, summary.gone_products) == (3, 1)
    assert {key: row["gone"] for key, row in found.items()} == {"p0": False, "p1": False, "p2": True, "p9": False}
    assert found["p0"] == before["p0"]
    assert texts(found["p1"])["title"] == "Yellow lamp"
    assert found["p2"] == {**before["p2"], "gone": True}
    run, summary = bring(tmp_path, "shop.csv", table(rows))
    assert {key: row["gone"] for key, row in products(run).items() if row["gone"]} == {"p9": True}
    again = ingest(run, [str(tmp_path / "shop.csv")], profile(), quiet=True)
    assert (again.parsed_rows, again.fetched, again.written_files) == (0, 0, 0)


def test_samples_and_products_fill_one_run(tmp_path: Path) -> None:
    (tmp_path / "p.jpg").write_bytes(png())
    (tmp_path / "rows.jsonl").write_text(json.dumps(sentiment(1)))
    (tmp_path / "shop.csv").write_text(table(plain(photos(tmp_path))))
    run = open_run(str(tmp_path / "run"))
    summary = ingest(run, [str(tmp_path / "rows.jsonl"), str(tmp_path / "shop.csv")], profile(), quiet=True)
    assert (summary.samples, summary.products) == (1, 3)


def test_prompts_are_shown_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(sentiment(1)) + "\n" + json.dumps({"task": "nothing"}))
    (tmp_path / "shop.csv").write_text(table(plain(["img/0.png"] * 3)))
    run = open_run(str(tmp_path / "run"))
    sources = [str(tmp_path / "shop.csv"), str(tmp_path / "rows.jsonl")]
    lines = preview_prompts(run, sources, profile(), rows=2)
    assert sum(line.startswith("  captioner") for line in lines) == 3
    assert any("product p0, context product, 1 of 1 images" in line for line in lines)
    assert any("Red mug" in line and line.startswith("  voters") for line in lines)
    assert any("rejected: task 'nothing' is unknown" in line for line in lines)
    assert not run.files("views")


def shard(members: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return sink.getvalue()


def test_shards_of_pictures_are_a_catalogue(tmp_path: Path) -> None:
    source = tmp_path / "shards"
    source.mkdir()
    bare = {f"{number:04}.png": png(number) for number in range(3)}
    (source / "0.tar").write_bytes(shard(bare))
    described = {
        "p1.png": png(5),
        "p1.json": b'{"title": "Red mug", "price": {"eur": 3}}',
        "p2.a.png": png(6),
        "p2.b.png": png(7),
        "p2.title": b"Blue lamp\n",
        "p2.json": b'{"id": "lamp"}',
        "p3.json": b"{",
    }
    (source / "1.tar.gz").write_bytes(gzip.compress(shard(described)))
    run = open_run(str(tmp_path / "run"))
    summary = ingest(run, [str(source)], profile("contexts={product: {images: all}}"), quiet=True)
    found = products(run)
    assert sorted(found) == ["0000", "0001", "0002", "lamp", "p1"]
    assert {key: len(row["views"]) for key, row in found.items() if len(row["views"]) != 1} == {"lamp": 2}
    assert all(view["view_id"] for row in found.values() for view in row["views"])
    assert texts(found["p1"]) == {"title": "Red mug", "price": "eur: 3"}
    assert texts(found["lamp"])["title"] == "Blue lamp"
    assert (summary.products, summary.images, summary.rejects) == (5, 6, {"sample": 1, "image": 0})
    (reject,) = run.read("rejects").to_pylist()
    assert reject["location"].endswith("1.tar.gz:3")
    assert reject["reason"].startswith("invalid JSON")


def test_a_hub_data_set_with_images_in_parquet_is_a_catalogue(tmp_path: Path) -> None:
    source = tmp_path / "dataset"
    (source / "data").mkdir(parents=True)
    (source / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n---\n# Mugs\n"
    )
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("id", pa.int64()), ("title", pa.string()), ("image", image)])
    for part in range(2):
        rows = [
            {"id": number, "title": TITLES[number], "image": {"bytes": png(number), "path": f"{number}.png"}}
            for number in range(part, 3, 2)
        ]
        file = source / "data" / f"train-{part:05}-of-00002.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema), file)
    run = open_run(str(tmp_path / "run"))
    summary = ingest(run, [str(source)], profile(), quiet=True)
    found = products(run)
    assert {key: texts(row)["title"] for key, row in found.items()} == dict(zip("012", TITLES, strict=True))
    assert all(view["view_id"] for row in found.values() for view in row["views"])
    assert (summary.products, summary.images, sum(summary.rejects.values())) == (3, 3, 0)
