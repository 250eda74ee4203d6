from __future__ import annotations

import io
import random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset._limits import DEFAULT
from caslie_ray.dataset._parquet_delta import value_sizes
from caslie_ray.dataset._parquet_pages import survey

ENCODING = "DELTA_BYTE_ARRAY"


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("nested", [False, True])
def test_the_sizes_of_values_with_shared_prefixes(version: str, compression: str, nested: bool) -> None:
    chance = random.Random(version + compression)
    texts: list[Any] = [
        None if chance.random() < 0.1 else "prefix " * chance.randrange(99) + str(chance.random()) for _ in range(3000)
    ]
    sink = io.BytesIO()
    pq.write_table(
        pa.table({"a": [texts[at : at + 3] for at in range(0, 3000, 3)] if nested else texts}),
        sink,
        compression=compression,
        use_dictionary=False,
        data_page_version=version,
        column_encoding={"a.list.element" if nested else "a": ENCODING},
        data_page_size=1 << 30,
        max_rows_per_page=1 << 20,
    )
    file = pa.BufferReader(sink.getvalue())
    (column,) = survey(file, pq.ParquetFile(file), 0, DEFAULT)
    sizes = [len(text or "") for text in texts]
    assert column.decoded == sum(sizes)
    assert column.row_bytes == (sum(sizes) if nested else max(sizes))


@pytest.mark.parametrize("seed", range(50))
def test_damaged_pages_have_no_sizes_or_harmless_ones(seed: int) -> None:
    data = random.Random(seed).randbytes(200)
    found = value_sizes(data, 1000)
    assert found is None or min(found) >= 0
    assert value_sizes(data[:1], 1000) is None
