"""Generates any number of synthetic views, for the null engine."""

from __future__ import annotations

import io
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from random import Random

import pyarrow as pa
from PIL import Image

from caslie_ray.hashing import content_id
from caslie_ray.prompts import Prompt, render
from caslie_ray.storage.partitions import partition_names
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import TASKS, Task

__all__ = ["fabricate"]

_VIEWS_PER_IMAGE = 5

# Invented texts of realistic length; no model reads them.
_TEXT = """
cordless drill with two batteries and charger brushless compact driver kit blue steel hammer fibreglass handle non slip
grip garden hose expandable fifty feet brass fittings running shoes for women lightweight breathable mesh trail yoga mat
extra thick camping lantern rechargeable waterproof adjustable dumbbell set it arrived quickly and works as described
but the strap broke after a week would buy again does fit most standard sizes
"""
_WORDS = _TEXT.split()
_WORDS_PER_FIELD = {"title": 12, "query": 5}


def fabricate(run: Run, views: int, digits: int = 2, processes: int = 1) -> None:
    """Write `images` and `views` as ingest would, one partition at a time.

    Args:
        run: the target run.
        views: number of views.
        digits: digits of the image id that name a partition.
        processes: number of processes.
    """
    names = partition_names(digits)
    ends = [views * (at + 1) // len(names) for at in range(len(names))]
    counts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    if processes == 1:
        for name, count in zip(names, counts, strict=True):
            _fabricate(name, count, run.uri)
        return
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(partial(_fabricate, uri=run.uri), names, counts))


def _fabricate(partition: str, count: int, uri: str) -> None:
    if not count:
        return
    dice = Random(partition)
    drawn = [_draw_image(dice) for _ in range(4)]
    ids = [partition + content_id(partition, str(n))[len(partition) :] for n in range(-(-count // _VIEWS_PER_IMAGE))]
    images = [{"image_id": one, "image": dice.choice(drawn), "width": 32, "height": 32} for one in sorted(ids)]
    rows = []
    for n in range(count):
        task = dice.choice(list(TASKS.values()))
        asked, judged = _prompts(task, dice)
        image_id = ids[n // _VIEWS_PER_IMAGE]
        rows.append(
            {
                "view_id": content_id(image_id, asked.text, judged.text),
                "image_id": image_id,
                "task": task.name,
                "caption_prompt": asked.text,
                "quality_prompt": judged.text,
                "caption_fields": asked.fields,
                "quality_fields": judged.fields,
                "given_caption": None,
            }
        )
    rows.sort(key=lambda row: str(row["view_id"]))
    run = open_run(uri)
    run.write("images", partition, pa.Table.from_pylist(images, SCHEMAS["images"]))
    run.write("views", partition, pa.Table.from_pylist(rows, SCHEMAS["views"]))


def _draw_image(dice: Random) -> bytes:
    data = io.BytesIO()
    Image.frombytes("RGB", (32, 32), dice.randbytes(32 * 32 * 3)).save(data, "JPEG")
    return data.getvalue()


def _prompts(task: Task, dice: Random) -> tuple[Prompt, Prompt]:
    slots = set(re.findall(r"\{\{(\w+)\}\}", task.caption_template + task.quality_template)) - {"caption"}
    values = {slot: " ".join(dice.choices(_WORDS, k=_WORDS_PER_FIELD.get(slot, 40))) for slot in sorted(slots)}
    return render(task.caption_template, **values), render(task.quality_template, **values)
