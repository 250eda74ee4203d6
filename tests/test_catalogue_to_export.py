"""A shop's table in, captions out by product id, on the drawn world."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from caslie_ray.commands import run_command
from caslie_ray.dataset import ingest
from caslie_ray.miniature import WorldSize
from caslie_ray.profiles import load_profile
from caslie_ray.storage.run import open_run
from caslie_ray.tasks import TASKS
from tests.dataset.world import png
from tests.worlds import InProcess, caption_here, draw

pytestmark = [pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(300)]

ASKED = TASKS["answerability_prediction"]


def test_a_context_of_two_lines_gets_the_captions_of_the_task_that_asks_the_same(tmp_path: Path) -> None:
    """The captions of the task are measured by evaluate; equal ids are equal images and prompts."""
    source = draw(tmp_path / "source", WorldSize(train=0, validation=0, ind=12, ood=12))
    records = [row for row in json.loads(source.read_text()) if row["task"] in (ASKED.name, ASKED.code)]
    samples = open_run(str(tmp_path / "samples"))
    (source.parent / "asked.json").write_text(json.dumps(records))
    ingest(samples, [str(source.parent / "asked.json")], load_profile("mini"), quiet=True)

    table = source.parent / "shop.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["sku", "question", "document", "image"])
        for number, record in enumerate(records):
            asked = json.loads(record["input"])
            (image,) = json.loads(record["images"])
            writer.writerow([f"SKU-{number}", asked["question"], asked["document"], image])
    context = json.dumps({"caption": ASKED.caption_template, "quality": ASKED.quality_template})
    settings = [f"contexts.asked={context}"]
    run = tmp_path / "run"
    assert run_command("ingest", ["--run", str(run), "--source", str(table), "--quiet", "--set", *settings]) == 0
    shop = open_run(str(run))
    views = {row["view_id"]: row["task"] for row in shop.read("views").to_pylist()}
    assert views.keys() == {row["view_id"] for row in samples.read("views").to_pylist()}
    assert set(views.values()) == {"asked"}

    caption_here(shop, load_profile("mini", settings), InProcess())
    target = tmp_path / "captions.csv"
    assert run_command("export", ["--run", str(run), "--to", str(target), "--quiet"]) == 0
    with target.open(newline="") as file:
        exported = list(csv.DictReader(file))
    captions = {row["view_id"]: row for row in shop.read("captions").to_pylist()}
    won = {view_id: row["caption"] for view_id, row in captions.items() if row["verdict"]}
    assert 0 < len(won) < len(captions)
    products = {row["product_id"]: row["views"] for row in shop.read("products").to_pylist()}
    assert len(products) == len(records)
    assert {row["id"]: row["caption"] for row in exported} == {
        product: won[views[0]["view_id"]] for product, views in products.items() if views[0]["view_id"] in won
    }


def test_the_pipeline_of_a_catalogue_ends_with_its_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mug.png").write_bytes(png())
    (tmp_path / "shop.csv").write_text("sku,title,image\nM1,Red mug,mug.png\n")
    run, source = str(tmp_path / "run"), str(tmp_path / "shop.csv")
    given = ["captions.source=dataset", "votes.rule=never"]  # no model is needed
    assert run_command("pipeline", ["--run", run, "--source", source, "--quiet", "--set", *given]) == 0
    assert "caslie export writes their captions" in capsys.readouterr().out
    assert open_run(run).read("captions").num_rows == 1
    assert not open_run(run).files("instructions")
