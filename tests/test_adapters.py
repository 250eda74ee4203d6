from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = (
    "import sys; from caslie_ray.adapters import with_local_adapters; from caslie_ray.engines import EngineSpec;"
    "print(with_local_adapters(EngineSpec('miniature:unim3-base', adapters={'a': sys.argv[1]})).adapters['a'])"
)


def fetch(uri: str, home: Path, processes: int = 1) -> set[str]:
    """The folders that processes of one node, started at once, find an adapter in."""
    command, env = [sys.executable, "-c", PROGRAM, uri], {**os.environ, "HF_HOME": str(home)}
    started = [subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE) for _ in range(processes)]
    folders = {process.communicate(timeout=120)[0].strip() for process in started}
    assert {process.returncode for process in started} == {0}
    return folders


def test_an_adapter_of_a_store_is_copied_once_per_node(tmp_path: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    store.mkdir()
    (store / "adapter_config.json").write_text("{}")
    (store / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    (first,) = fetch(store.as_uri(), home, processes=3)
    assert {file.name: file.read_bytes() for file in Path(first).iterdir()} == {
        file.name: file.read_bytes() for file in store.iterdir()
    }
    assert [folder for folder in (home / "caslie-adapters").iterdir() if folder.is_dir()] == [Path(first)]
    # Replaced under the same name, as a training that goes on replaces its best adapter.
    (store / "adapter_model.safetensors").write_bytes(b"other weights")
    (second,) = fetch(store.as_uri(), home)
    assert second != first
    assert (Path(second) / "adapter_model.safetensors").read_bytes() == b"other weights"


@pytest.mark.parametrize("home", ["/proc/nowhere", "file/home"])
def test_a_home_that_cannot_be_written_leaves_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    store, temporary = tmp_path / "store", tmp_path / "temporary"
    store.mkdir()
    temporary.mkdir()
    (tmp_path / "file").write_text("")
    (store / "adapter_model.safetensors").write_bytes(b"weights")
    monkeypatch.setenv("TMPDIR", str(temporary))
    (folder,) = fetch(store.as_uri(), tmp_path / home)
    root = temporary / f"caslie-adapters-{os.getuid()}"
    assert Path(folder).parent == root
    assert root.stat().st_mode & 0o777 == 0o700
    assert (Path(folder) / "adapter_model.safetensors").read_bytes() == b"weights"
    assert fetch(store.as_uri(), tmp_path / home) == {folder}


def test_a_copy_that_was_broken_off_is_made_anew(tmp_path: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "home"
    store.mkdir()
    (store / "adapter_model.safetensors").write_bytes(b"weights")
    (folder,) = fetch(store.as_uri(), home)
    part = Path(folder).with_suffix(".part")
    Path(folder).rename(part)
    (part / "adapter_model.safetensors").write_bytes(b"wei")
    assert fetch(store.as_uri(), home) == {folder}
    assert (Path(folder) / "adapter_model.safetensors").read_bytes() == b"weights"
    assert not part.exists()
