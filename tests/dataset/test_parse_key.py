"""Parsed rows are kept under a hash of the code that made them, so that they are parsed again when it changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from caslie_ray.dataset._parse import parse_key
from caslie_ray.dataset._sources import SourceFile
from caslie_ray.profiles import ImageSettings, IngestSettings
from caslie_ray.tasks import TASKS


def key() -> str:
    return parse_key(SourceFile("rows.json", "/data/rows.json", "1|2"), IngestSettings(), ImageSettings(), TASKS, None)


@pytest.mark.parametrize(
    "module",
    ["dataset/_references.py", "dataset/_json_values.py", "imaging/storing.py", "tasks/_parsing.py", "hashing.py",
     "prompts.py"],
)  # fmt: skip
def test_changed_code_changes_the_key(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    assert key() == before
    read = Path.read_bytes

    def changed(path: Path) -> bytes:
        return read(path) + (b"# changed" if str(path).endswith(f"caslie_ray/{module}") else b"")

    monkeypatch.setattr(Path, "read_bytes", changed)
    assert key() != before
