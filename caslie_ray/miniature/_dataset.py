"""Writes the miniature world as a data set in the released MMECInstruct format, with its ground truth."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from caslie_ray.miniature._records import record_of
from caslie_ray.miniature._samples import MAKERS, DrawnSample, World
from caslie_ray.miniature.catalogue import ATTRIBUTES, Combinations, Domain, held_out
from caslie_ray.miniature.drawing import Picture, draw_picture, encode
from caslie_ray.miniature.truth import caption_of
from caslie_ray.tasks import find_task

__all__ = ["OOD_TASKS", "TRUTH_IMAGES", "TRUTH_VIEWS", "WorldSize", "write_dataset"]

OOD_TASKS = ("AP", "CC", "PRP", "SA", "SR")  # paper, section 3.4
_SPLITS: tuple[tuple[str, str, Domain], ...] = (
    ("train", "train", "tools"),
    ("validation", "validation", "tools"),
    ("ind", "test", "tools"),
    ("ood", "OOD", "sports"),
)

_LOOK = pa.struct([pa.field(name, pa.string()) for name in ATTRIBUTES])
TRUTH_IMAGES = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),  # the reference in dataset.json
        pa.field("kind", pa.string(), nullable=False),  # informative, placeholder, blurred or wrong
        pa.field("shown", _LOOK),  # what was drawn; null if nothing can be seen
        pa.field("product", _LOOK, nullable=False),  # what the product is
        pa.field("held_out", pa.bool_(), nullable=False),  # no checkpoint was trained on what was drawn
    ]
)
TRUTH_VIEWS = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),  # of the sample in dataset.json
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),  # of the image in the sample
        pa.field("image", pa.string(), nullable=False),
        pa.field("usefulness", pa.string(), nullable=False),  # useful, useless or misleading
        pa.field("asks", pa.list_(pa.string()), nullable=False),  # attributes the context asks for
        pa.field("lacks", pa.list_(pa.string()), nullable=False),  # those that the text does not state
        pa.field("caption", pa.string(), nullable=False),  # by a perfect captioner
    ]
)


@dataclass(frozen=True, slots=True)
class WorldSize:
    """The size of a data set. The default gives about 850 distinct views.

    Attributes:
        train: samples per task in this split, as for `validation`, `ind` and `ood`.
        shelf: products per category, with one image each, that PRP and SR samples share.
        combinations: which of category, colour and pattern are drawn: all, those that the checkpoints were trained on
            (`seen`), or only the others (`held_out`).

    Raises:
        ValueError: a count is negative, or the shelf is too small for recommendations.
    """

    train: int = 60
    validation: int = 8
    ind: int = 20
    ood: int = 20
    shelf: int = 6
    combinations: Combinations = "all"

    def __post_init__(self) -> None:
        if min(self.train, self.validation, self.ind, self.ood) < 0:
            raise ValueError("the number of samples in a split is at least 0")
        if self.shelf < 6:
            raise ValueError("the shelf has at least 6 products per category")


def _samples(size: WorldSize, seed: int) -> Iterator[tuple[str, DrawnSample]]:
    """Yield each sample with its split as spelled in the data set; inputs of a task are distinct."""
    worlds = {
        domain: World(Random(f"{seed}/{domain}"), domain, shelf=size.shelf, combinations=size.combinations)
        for _, _, domain in _SPLITS
    }
    counts = asdict(size)
    written: set[str] = set()
    for split, spelled, domain in _SPLITS:
        for task, maker in MAKERS.items():
            if split == "ood" and task not in OOD_TASKS:
                continue
            remaining = int(counts[split])
            while remaining:
                sample = maker(worlds[domain])
                key = json.dumps([task, sample.fields, sample.options if task == "SR" else []])
                if key not in written:
                    written.add(key)
                    remaining -= 1
                    yield spelled, sample


def write_dataset(directory: str | Path, size: WorldSize | None = None, seed: int = 0) -> Path:
    """Write `dataset.json`, `images/` and `truth/` into a directory; deterministic.

    Returns:
        The path of `dataset.json`, whose image references are relative to its folder. `caption_info` has the captions
        of a perfect captioner, also of wrong images.
    """
    folder = Path(directory)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    names: dict[Picture, str] = {}
    records: list[dict[str, str]] = []
    truths: list[dict[str, object]] = []
    for row, (split, sample) in enumerate(_samples(size or WorldSize(), seed)):
        for view in sample.views:
            if view.picture not in names:
                names[view.picture] = f"images/{len(names):06d}.jpg"
                (folder / names[view.picture]).write_bytes(encode(draw_picture(view.picture)))
        images = [names[view.picture] for view in sample.views]
        captions = [caption_of(view) for view in sample.views]
        record = record_of(sample, split, images, captions)
        records.append(record)
        read = find_task(sample.task).parse(record)
        truths += [
            {
                "row": row, "sample_id": read.sample_id, "task": read.task, "split": read.split,
                "position": at, "image": images[at], "usefulness": view.usefulness,
                "asks": list(view.asks), "lacks": list(view.lacks), "caption": captions[at],
            }
            for at, view in enumerate(sample.views)
        ]  # fmt: skip
    pictures = [
        {
            "image": name,
            "kind": picture.kind,
            "shown": picture.shown.as_dict() if picture.shown else None,
            "product": picture.product.as_dict(),
            "held_out": held_out(picture.shown or picture.product),
        }
        for picture, name in names.items()
    ]
    pq.write_table(pa.Table.from_pylist(pictures, TRUTH_IMAGES), folder / "truth" / "images.parquet")
    pq.write_table(pa.Table.from_pylist(truths, TRUTH_VIEWS), folder / "truth" / "views.parquet")
    path = folder / "dataset.json"
    path.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
