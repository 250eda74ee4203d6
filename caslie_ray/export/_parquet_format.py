"""The formats that are Parquet: typed columns."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caslie_ray.export._rows import ROWS

__all__ = ["DATASET", "PARQUET", "ParquetFormat"]

_ROW_GROUP = 1 << 16
_CHUNK = 8 << 20
_SETTINGS: dict[str, Any] = {"compression": "zstd"}
_MAP = pa.map_(pa.string(), pa.float64())


class ParquetFormat:
    """Parquet.

    Args:
        maps: whether `probabilities` is a map of voters, and not a list of voters with their probability.

    Attributes:
        schema: of the files.
    """

    def __init__(self, *, maps: bool) -> None:
        self._maps = maps
        self._place = ROWS.get_field_index("probabilities")
        self.schema = ROWS.set(self._place, pa.field("probabilities", _MAP)) if maps else ROWS

    def encode(self, rows: pa.Table) -> tuple[pa.Buffer, int]:
        """Return rows as a file, and their number."""
        if self._maps:
            votes = rows["probabilities"].combine_chunks()
            rows = rows.set_column(self._place, self.schema.field(self._place), _as_maps(votes))
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, row_group_size=_ROW_GROUP, **_SETTINGS)
        return sink.getvalue(), rows.num_rows

    def write_one(self, stream: BinaryIO, part: BinaryIO) -> None:
        """Write a file that is one part."""
        shutil.copyfileobj(part, stream, _CHUNK)

    def write_all(self, stream: BinaryIO, parts: Iterable[BinaryIO]) -> None:
        """Write a file from any number of parts, in their order; row groups of small parts are merged."""
        with pq.ParquetWriter(stream, self.schema, **_SETTINGS) as writer:
            waiting: list[pa.RecordBatch] = []
            for part in parts:
                for batch in pq.ParquetFile(part).iter_batches(_ROW_GROUP):
                    if waiting and sum(map(len, waiting)) + len(batch) > _ROW_GROUP:
                        writer.write_table(pa.Table.from_batches(waiting), _ROW_GROUP)
                        waiting = []
                    waiting.append(batch)
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting), _ROW_GROUP)


def _as_maps(votes: pa.ListArray) -> pa.MapArray:
    keys, values = (pc.struct_field(votes.values, name) for name in ("voter", "p_yes"))
    return pa.MapArray.from_arrays(votes.offsets, keys, values, mask=votes.is_null())


PARQUET = ParquetFormat(maps=True)
DATASET = ParquetFormat(maps=False)
"""The library `datasets` reads no maps."""
