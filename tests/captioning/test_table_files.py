"""What is read and listed of a partition."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.captioning._table_files import read_images
from caslie_ray.roles import resolve
from caslie_ray.storage.run import Run, open_run
from tests.captioning.fakes import CountingStore, KeyedAnswers
from tests.worlds import caption_here, fresh_run, profile


def test_a_block_reads_only_its_own_images(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    images = [{"image_id": f"0{n:04d}", "image": random.randbytes(5000), "width": 1, "height": 1} for n in range(1000)]
    path = run.write("images", "0", pa.Table.from_pylist(images))
    store = CountingStore(skip_instance_cache=True)
    counted = Run(pafs.PyFileSystem(pafs.FSSpecHandler(store)), run.root, run.uri)
    ids = [str(row["image_id"]) for row in images[500:510]] + ["0zzzz"]
    assert set(read_images(counted, "0", ids[:10])) == set(ids[:10])
    assert store.read < Path(path).stat().st_size / 4
    assert set(read_images(run, "0", ids)) == set(ids[:10])


def test_a_partition_with_a_given_file_listing_is_not_listed(
    world: Path, tmp_path: Path, answers: KeyedAnswers
) -> None:
    run = fresh_run(world, tmp_path / "run")
    caption_here(run, profile(), answers)
    lineup = resolve(profile())
    name = run.partition(run.files("views")[0])
    tables = ["views", "images", "captions", "answers/kept", *(role.answers for role in lineup.roles)]
    files = {table: run.by_partition(table).get(name, []) for table in tables}
    store = CountingStore(skip_instance_cache=True)
    counted = Run(pafs.PyFileSystem(pafs.FSSpecHandler(store)), run.root, run.uri)
    assert partition_status(counted.with_file_listing(files), name, lineup) == partition_status(run, name, lineup)
    assert store.listed == 0
    partition_status(counted, name, lineup)
    assert store.listed > 0
