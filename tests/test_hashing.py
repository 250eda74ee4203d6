"""Content hashes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from caslie_ray.hashing import content_id

ROOT = Path(__file__).parents[1]
PARTS = st.lists(st.one_of(st.binary(max_size=6), st.text(alphabet="ab\x00é\ud800", max_size=4)), max_size=4)


def _bytes(parts: list[str | bytes]) -> list[bytes]:
    return [part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in parts]


@settings(deadline=None)
@given(PARTS)
def test_thirty_two_digits_and_always_the_same(parts: list[str | bytes]) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", content_id(*parts))
    assert content_id(*parts) == content_id(*parts)


@settings(deadline=None)
@given(PARTS, PARTS)
def test_every_part_and_every_boundary_changes_the_hash(one: list[str | bytes], other: list[str | bytes]) -> None:
    assert (content_id(*one) == content_id(*other)) == (_bytes(one) == _bytes(other))


def test_part_boundaries_change_the_hash() -> None:
    assert len({content_id("ab", "c"), content_id("a", "bc"), content_id("abc"), content_id("abc", "")}) == 4


def test_text_is_hashed_as_utf8() -> None:
    assert content_id("é") == content_id("é".encode())


def test_the_hash_never_changes() -> None:
    """Runs are read again by later versions: a changed hash would recompute everything."""
    assert content_id("caption", b"\x00\xff") == "837732387db5f2711e38e446753d3844"
    code = "from caslie_ray.hashing import content_id; print(content_id('caption', b'\\x00\\xff'))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == content_id("caption", b"\x00\xff")
