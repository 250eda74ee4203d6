"""Blocks as single rows of a Ray Data dataset."""

from __future__ import annotations

import pyarrow as pa
import pytest

from caslie_ray.pipeline.blocks import Failed, pack, pack_failure, unpack


def block(rows: int) -> pa.Table:
    schema = pa.schema([("id", pa.string()), ("image", pa.binary())], metadata={b"partition": b"3f"})
    return pa.table([[f"v{n}" for n in range(rows)], [b"\xff\xd8" * n for n in range(rows)]], schema=schema)


@pytest.mark.parametrize("rows", [0, 1, 300])
def test_a_block_is_one_row_and_survives_a_round_trip(rows: int) -> None:
    packed = pack(block(rows))
    assert packed.num_rows == 1
    assert packed["rows"].to_pylist() == [rows]
    opened = unpack(packed)
    assert isinstance(opened, pa.Table)
    assert opened.equals(block(rows), check_metadata=True)


def test_a_block_of_several_chunks_keeps_all_of_its_rows() -> None:
    opened = unpack(pack(pa.concat_tables([block(3), block(2)])))
    assert isinstance(opened, pa.Table)
    assert opened["id"].to_pylist() == ["v0", "v1", "v2", "v0", "v1"]


def test_opening_copies_no_bytes() -> None:
    packed = pack(pa.table({"image": [b"x" * 10_000_000]}))
    before = pa.total_allocated_bytes()
    opened = unpack(packed)
    assert isinstance(opened, pa.Table)
    assert opened.nbytes > 10_000_000
    assert pa.total_allocated_bytes() - before < 1_000_000


@pytest.mark.parametrize("failed", [Failed("s3://run refuses: 403", down=False), Failed("phi is down", down=True)])
def test_a_failed_block_states_the_reason(failed: Failed) -> None:
    assert unpack(pack_failure(failed)) == failed


def test_blocks_and_failed_ones_have_one_schema() -> None:
    assert pack(block(2)).schema.equals(pack_failure(Failed("no", down=True)).schema)
