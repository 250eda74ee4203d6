"""Checkpoints from a hub: branches become commits, errors have names, and weights are fetched once per node."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from caslie_ray.engines import resolve
from tests.hub import Fault, Hub, environment, hub

NAME = "some-org/voter"
MINIATURE = Path(resolve("miniature:voter-phi").location)
SPEC = "EngineSpec({name!r}, revision={revision!r}, context=512, device='cpu')"
HEAD = (
    "import json, logging, sys; logging.basicConfig(level=logging.INFO, format='%(levelname)s %(message)s');"
    "from caslie_ray.engines import *; from caslie_ray.engines import _hub_requests;"
    "_hub_requests.PAUSES_S = (0.05, 0.05, 0.05);"
    "from caslie_ray.engines.revisions import pinned; from caslie_ray.engines.preflight import preflight;"
    "from caslie_ray.engines.downloads import local_snapshot;"
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    with hub() as state:
        shutil.copytree(MINIATURE, tmp_path / "one")
        state.publish(NAME, tmp_path / "one")
        yield state


class Node:
    """Processes of one machine, with a cache of their own.

    Args:
        server: what they take for the hub.
        home: the folder of the cache.
    """

    def __init__(self, server: Hub, home: Path) -> None:
        self._url = server.url
        self._home = home

    def start(
        self, program: str, name: str = NAME, revision: str | None = "main", *, offline: bool = False
    ) -> subprocess.Popen[str]:
        """Begin a program in which `spec` is a checkpoint of the hub."""
        code = f"{HEAD} spec = {SPEC.format(name=name, revision=revision)}\n{program}"
        env = {**os.environ, **environment(self._url, self._home, offline=offline)}
        return subprocess.Popen(
            [sys.executable, "-c", code], env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(
        self, program: str, name: str = NAME, revision: str | None = "main", *, offline: bool = False
    ) -> tuple[str, str]:
        """Run a program; return what it prints, and its log."""
        done = self.start(program, name, revision, offline=offline)
        out, log = done.communicate(timeout=120)
        assert done.returncode == 0, log
        return out.strip(), log


@pytest.fixture
def node(server: Hub, tmp_path: Path) -> Node:
    return Node(server, tmp_path / "home")


def caught(call: str) -> str:
    """A program that prints the error of a call."""
    return f"try: {call}\nexcept EngineError as error: print(type(error).__name__, error)"


def test_a_branch_becomes_its_commit_and_is_asked_for_once(server: Hub, node: Node) -> None:
    commit = server.refs[NAME, "main"]
    out, log = node.run("print(pinned(spec).revision); fingerprint(spec); print(pinned(pinned(spec)).revision)")
    assert out.split() == [commit, commit]
    assert server.asked == {("GET", f"/api/models/{NAME}/revision/main"): 1}
    assert log.count(f"revision main of {NAME} may move, and answers would change with it: pin revision: {commit}") == 1


def test_a_commit_makes_no_requests(server: Hub, node: Node) -> None:
    out, log = node.run("print(pinned(spec).revision, fingerprint(spec))", revision="a" * 40)
    assert out.startswith("a" * 40)
    assert not server.asked
    assert "WARNING" not in log


def test_the_default_branch_becomes_its_commit(server: Hub, node: Node) -> None:
    assert node.run("print(pinned(spec).revision)", revision=None)[0] == server.refs[NAME, "main"]


def test_a_moved_branch_gives_another_fingerprint(server: Hub, node: Node, tmp_path: Path) -> None:
    first = server.refs[NAME, "main"]
    before, again = (node.run("print(fingerprint(spec))")[0] for _ in range(2))
    folder = shutil.copytree(MINIATURE, tmp_path / "two")
    (folder / "generation_config.json").write_text("{}")
    assert server.publish(NAME, folder) != first
    moved, _ = node.run("print(fingerprint(spec))")
    pinned_before, _ = node.run("print(fingerprint(spec))", revision=first)
    assert before == again == pinned_before != moved


def test_too_many_requests_are_waited_for(server: Hub, node: Node) -> None:
    server.faults = [Fault("/revision/main", 429, {"Retry-After": "2"}, times=1)]
    out, log = node.run(
        "import time; begun = time.monotonic(); print(pinned(spec).revision, time.monotonic() - begun >= 2)"
    )
    assert out == f"{server.refs[NAME, 'main']} True"
    assert f"the hub limits requests (429) and does not give {NAME}; next try in 2 s" in log
    assert server.count("/revision/main") == 2


def test_a_hub_that_fails_is_asked_a_bounded_number_of_times(server: Hub, node: Node) -> None:
    server.faults = [Fault("/revision/main", 500)]
    out, _ = node.run(caught("pinned(spec)"))
    assert f"the hub does not give {NAME} (500), in 4 tries" in out
    assert f"set a commit as `revision`, set HF_HUB_OFFLINE=0, or download it first: hf download {NAME}" in out
    assert server.count("/revision/main") == 4


def test_the_cache_counts_where_the_hub_does_not_answer(server: Hub, node: Node) -> None:
    commit, _ = node.run("print(pinned(spec).revision)")
    server.faults = [Fault(".", 503)]
    program = "print(pinned(spec).revision)"
    for out, log in (node.run(program), node.run(program, offline=True)):
        assert out == commit
        assert f"using {commit}, which revision main had at the last look-up" in log


def test_the_error_names_the_remedy_where_the_commit_is_unknown(node: Node) -> None:
    out, _ = node.run(caught("pinned(spec)"), offline=True)
    assert out.startswith("LoadError the commit of revision main is not known: ")
    assert "HF_HUB_OFFLINE is set" in out
    assert "set a commit as `revision`, set HF_HUB_OFFLINE=0, or download it first" in out


@pytest.mark.parametrize(
    ("fault", "name", "revision", "told"),
    [
        (Fault("/resolve/", 403, {"X-Error-Code": "GatedRepo"}), NAME, "main", "some-org/voter is gated (accept its"),
        (Fault(".", 401), NAME, "main", "refuses the HF_TOKEN that is sent for some-org/voter (401) (set HF_TOKEN on"),
        (Fault("/tree/", 403), NAME, "main", "may not read some-org/voter (403) (set HF_TOKEN on every node"),
        (Fault("^$", 0), "some-org/no", "main", "has no repository some-org/no that is public, and HF_TOKEN is not"),
        (Fault("^$", 0), NAME, "nosuch", "some-org/voter has no revision nosuch (set `revision` to a branch"),
        (Fault("^$", 0), NAME, "b" * 40, f"some-org/voter has no revision {'b' * 40} (set `revision`"),
    ],
)
def test_a_permanent_hub_error_is_reported_with_a_remedy(
    server: Hub, node: Node, fault: Fault, name: str, revision: str, told: str
) -> None:
    server.faults = [fault]
    out, _ = node.run(caught("preflight(spec)"), name, revision)
    assert told in out
    assert max(server.asked.values()) == 1, "it was tried again"


def test_settings_that_never_work_are_found_before_weights_are_fetched(server: Hub, node: Node, tmp_path: Path) -> None:
    def commit(name: str) -> str:
        return name.encode().hex().ljust(40, "0")

    def publish(name: str) -> Path:
        folder = Path(shutil.copytree(MINIATURE, tmp_path / name))
        server.commits[f"some-org/{name}", commit(name)] = folder
        return folder

    (publish("bare") / "chat_template.jinja").unlink()
    folder = publish("foreign")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "nosuch"}))
    (publish("pickled") / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    publish("good")
    names = {name: commit(name) for name in ("bare", "foreign", "pickled", "good")}
    program = f"from dataclasses import replace\nfor name, commit in {names}.items():\n    " + (
        "spec = replace(spec, checkpoint='some-org/' + name, revision=commit)\n    "
        + caught("preflight(spec)").replace("\n", "\n    ")
    )
    out, _ = node.run(program)
    bare, foreign, pickled = out.splitlines()
    assert re.match(r"EngineError checkpoint some-org/bare has no chat template.*use an instruction-tuned", bare)
    assert re.match(r"CheckpointError checkpoint some-org/foreign cannot be read: .*does not recogni.e this", foreign)
    assert "choose a checkpoint of a supported architecture" in foreign
    assert re.match(r"CheckpointError checkpoint some-org/pickled has no safetensors weights; choose one", pickled)
    assert server.count(r"\.safetensors|\.bin") == 0


def test_processes_that_start_at_once_download_once(server: Hub, node: Node) -> None:
    (server.commits[NAME, server.refs[NAME, "main"]] / "pytorch_model.bin").write_bytes(b"a pickle")
    server.delay_s = 0.02
    program = "print(local_snapshot(spec.checkpoint, pinned(spec).revision))"
    started = [node.start(program) for _ in range(3)]
    for process in started:
        _, log = process.communicate(timeout=120)
        assert process.returncode == 0, log
    files = {path: times for (how, path), times in server.asked.items() if how == "GET" and "/resolve/" in path}
    assert set(files.values()) == {1}
    assert {Path(path).name for path in files} == {file.name for file in MINIATURE.iterdir()}
    asked = server.asked.total()
    program = (
        "import torch; from caslie_ray.engines.trainable import load_trainable;"
        "load_trainable(pinned(spec), torch.device('cpu'));"
        "engine = load_engine(pinned(spec)); from caslie_ray.prompts import Prompt;"
        "print(engine.generate([Request('a', Prompt('Is it red?'))])[0].failure)"
    )
    assert node.run(program)[0] == "None"
    assert server.asked.total() - asked == 1, "more than the branch was asked for"


def test_another_process_continues_when_the_downloading_one_is_killed(server: Hub, node: Node) -> None:
    server.delay_s = 0.3
    program = "print(local_snapshot(spec.checkpoint, pinned(spec).revision))"
    first = node.start(program)
    until(lambda: server.count("/model.safetensors") == 1)
    second = node.start(program)
    until(lambda: server.count("/revision/main") == 2)
    time.sleep(1.0)
    assert second.poll() is None
    first.send_signal(signal.SIGKILL)
    server.delay_s = 0.0
    out, log = second.communicate(timeout=60)
    assert second.returncode == 0, log
    assert (Path(out.strip()) / "model.safetensors").read_bytes() == (MINIATURE / "model.safetensors").read_bytes()
    first.communicate()


def test_a_disk_that_is_too_small_is_reported_before_the_download(server: Hub, node: Node) -> None:
    server.sizes["model.safetensors"] = 1 << 60
    out, _ = node.run(caught("local_snapshot(spec.checkpoint, pinned(spec).revision)"))
    assert re.search(r"some-org/voter takes 1073741824\.\d GiB, and \S+/hub has [\d.]+ GiB free \(free disk", out), out
    assert server.count(r"\.safetensors") == 0


def test_what_is_cached_needs_no_hub(server: Hub, node: Node) -> None:
    commit = server.refs[NAME, "main"]
    program = "print(local_snapshot(spec.checkpoint, spec.revision))"
    online, _ = node.run(program, revision=commit)
    asked = server.asked.total()
    assert node.run(program, revision=commit)[0] == node.run(program, revision=commit, offline=True)[0] == online
    assert server.asked.total() == asked
    out, _ = node.run(caught(program), revision="c" * 40, offline=True)
    assert re.match(r"LoadError some-org/voter at revision c{40} is not in the cache \S+, and HF_HUB_OFFLINE is", out)


@pytest.mark.parametrize("status", [503, 429])
def test_a_partial_cache_does_not_hide_that_the_hub_fails(server: Hub, node: Node, tmp_path: Path, status: int) -> None:
    commit = cache_settings(server, tmp_path / "home")
    server.faults = [Fault(".", status)]
    program = "import time; time.sleep = lambda seconds: None\n" + "\n".join(
        f"try: {call}\nexcept EngineError as error: print(error.failure.kind, error)"
        for call in ("preflight(spec)", "local_snapshot(spec.checkpoint, spec.revision)")
    )
    lines = node.run(program, revision=commit)[0].splitlines()
    assert len(lines) == 2
    assert all(line.startswith("retry the hub ") and f"({status})" in line for line in lines), lines
    lines = node.run(program, revision=commit, offline=True)[0].splitlines()
    assert len(lines) == 2
    for line in lines:
        assert re.match(rf"elsewhere {NAME} at revision {commit} is only partly in the cache \S+, and HF_HUB_OFF", line)
        assert "(set HF_HUB_OFFLINE=0, or download" in line
    server.faults = []
    out, _ = node.run("print(local_snapshot(spec.checkpoint, spec.revision))", revision=commit)
    assert (Path(out) / "model.safetensors").is_file()


def test_a_cache_without_the_list_of_files_is_enough_if_it_has_weights(server: Hub, node: Node, tmp_path: Path) -> None:
    commit = cache_settings(server, tmp_path / "home", ["model.safetensors"])
    server.faults = [Fault(".", 503)]
    program = "import time; time.sleep = lambda seconds: None\nprint(local_snapshot(spec.checkpoint, spec.revision))"
    assert node.run(program, revision=commit)[0] == node.run(program, revision=commit, offline=True)[0]


def cache_settings(server: Hub, home: Path, others: Sequence[str] = ()) -> str:
    """Put settings into the cache, as a client does that keeps no list of the files; return the commit."""
    commit = server.refs[NAME, "main"]
    folder = home / "hub" / f"models--{NAME.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    for file in MINIATURE.iterdir():
        if file.suffix in (".json", ".jinja") or file.name in others:
            shutil.copy(file, folder)
    return commit


def until(true: object, seconds: float = 60.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.05)
