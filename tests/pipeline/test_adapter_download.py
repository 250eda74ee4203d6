"""Copies of adapters on a node: made once, used together, removed after use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = (
    "import sys; from caslie_ray.pipeline.adapter_download import with_local_adapters;"
    "from caslie_ray.engines import EngineSpec;"
    "spec = EngineSpec('miniature:unim3-base', adapters={'a': sys.argv[1]});"
    "print(with_local_adapters(spec).adapters['a'], flush=True); sys.stdin.read()"
)


@contextmanager
def fetching(uri: str, home: Path, processes: int = 1) -> Iterator[tuple[list[Path], list[subprocess.Popen[str]]]]:
    """Processes of one node, started at once, that use an adapter; and the folder that each of them finds it in."""
    command, env = [sys.executable, "-c", PROGRAM, uri], {**os.environ, "HF_HOME": str(home)}
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, env=env, text=True, stdin=pipe, stdout=pipe) for _ in range(processes)]
    try:
        yield [Path(process.stdout.readline().strip()) for process in started if process.stdout], started
        for process in started:
            process.communicate(timeout=60)
        assert {process.returncode for process in started} <= {0, -9}
    finally:
        for process in started:
            process.kill()


def copies(home: Path) -> list[Path]:
    return [folder for folder in (home / "caslie-adapters").iterdir() if folder.is_dir()]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights" * 1000)
    return folder


def test_an_adapter_of_a_store_is_copied_once_per_node(tmp_path: Path, store: Path) -> None:
    home = tmp_path / "home"
    with fetching(store.as_uri(), home, processes=3) as (folders, _):
        first = folders[0]
        assert set(folders) == {first}
        assert contents(first) == contents(store)
        assert copies(home) == [first]
        # Replaced under the same name, as a training that goes on replaces its best adapter.
        (store / "adapter_model.safetensors").write_bytes(b"other weights")
        with fetching(store.as_uri(), home) as ((second,), _):
            assert second != first
            assert contents(second) == contents(store)
            assert set(copies(home)) == {first, second}


def test_a_copy_is_removed_when_its_last_user_ends(tmp_path: Path, store: Path) -> None:
    home = tmp_path / "home"
    with fetching(store.as_uri(), home) as ((folder,), _):
        with fetching(store.as_uri(), home) as ((same,), _):
            assert same == folder
        assert contents(folder) == contents(store)
    assert copies(home) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path, store: Path) -> None:
    home = tmp_path / "home"
    with fetching(store.as_uri(), home) as ((left,), (process,)):
        process.kill()
        process.wait()
        assert copies(home) == [left]
    (store / "adapter_model.safetensors").write_bytes(b"other weights")
    with fetching(store.as_uri(), home) as ((folder,), _):
        assert copies(home) == [folder]
        assert folder != left


@pytest.mark.parametrize("home", ["/proc/nowhere", "file/home"])
def test_a_home_that_cannot_be_written_leaves_the_temporary_files(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(temporary))
    with fetching(store.as_uri(), tmp_path / home) as ((folder,), _):
        root = temporary / f"caslie-adapters-{os.getuid()}"
        assert folder.parent == root
        assert root.stat().st_mode & 0o777 == 0o700
        assert contents(folder) == contents(store)
        with fetching(store.as_uri(), tmp_path / home) as ((same,), _):
            assert same == folder


def test_an_interrupted_copy_is_made_again(tmp_path: Path, store: Path) -> None:
    home = tmp_path / "home"
    with fetching(store.as_uri(), home) as ((folder,), _):
        pass
    part = folder.with_suffix(".part")
    part.mkdir()
    (part / "adapter_model.safetensors").write_bytes(b"wei")
    with fetching(store.as_uri(), home) as ((again,), _):
        assert again == folder
        assert contents(folder) == contents(store)
        assert not part.exists()


def test_release_removes_the_copies_of_a_process_that_continues(tmp_path: Path, store: Path) -> None:
    program = (
        "import os, sys; from caslie_ray.pipeline.adapter_download import release_adapters, with_local_adapters;"
        "from caslie_ray.engines import EngineSpec;"
        "spec = EngineSpec('miniature:unim3-base', adapters={'a': sys.argv[1]});"
        "first = with_local_adapters(spec).adapters['a']; release_adapters(); gone = not os.path.exists(first);"
        "print(gone, os.path.exists(with_local_adapters(spec).adapters['a']))"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", program, store.as_uri()]
    assert subprocess.run(command, env=env, text=True, capture_output=True, check=True).stdout == "True True\n"
    assert copies(tmp_path / "home") == []
