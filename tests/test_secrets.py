"""Keys in URIs stay there: no file of a run, no log and no message holds them, whether a job succeeds or fails."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import ray

from caslie_ray.cli import COMPLETE, FAILED, WRONG_ARGUMENTS, Arguments, main
from caslie_ray.jobs import caption_job, evaluate_job, ingest_job
from caslie_ray.profiles import load_profile
from caslie_ray.storage.redaction import public_uri, without_credentials
from caslie_ray.storage.run import Run, open_run
from tests.dataset.world import category, png
from tests.object_store import ObjectStore, object_store
from tests.worlds import voter

# Must not appear in any output, also where a key is cut at a slash or shown without its percent signs.
MARK = re.compile("FAKEKEY|fakesecret", re.IGNORECASE)
JOBS: dict[str, Callable[[Arguments], int]] = {
    "ingest": ingest_job, "caption": caption_job, "evaluate": evaluate_job
}  # fmt: skip


@dataclass
class World:
    """A server with a source, images in three buckets, and URIs that each have keys of their own."""

    store: ObjectStore
    settings: list[str]

    def uri(self, place: str, keys: str | None = None) -> str:
        """Return the URI of a place, with keys named after its bucket."""
        bucket, _, path = place.partition("/")
        keys = keys or f"FAKEKEY{bucket}:fakesecret{bucket}%2F%2Bfakesecret"
        host = f"127.0.0.1:{self.store.port}"
        return f"s3://{keys}@{bucket}/{path}?endpoint_override={host}&scheme=http&region=us-east-1"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with object_store(buckets=["source", "media", "more", "runs"]) as store:
        here = World(store, [])
        rows = [
            category("red mug", "images/0.png"),
            category("blue mug", "s3://source/set/images/1.png"),
            category("green mug", "s3://more/public/2.png"),
            category("lost mug", "images/lost.png"),
            category("private mug", "s3://more/private/3.png"),
            category("page mug", "images/page.png"),
        ]
        objects = {
            "source/set/rows.json": json.dumps(rows).encode(),
            "source/set/images/1.png": png(1, (64, 64)),
            "media/images/0.png": png(0, (64, 64)),
            "media/images/page.png": b"<html>",
            "more/public/2.png": png(2, (64, 64)),
            "more/private/3.png": png(3, (64, 64)),
        }
        for place, data in objects.items():
            bucket, _, path = place.partition("/")
            run = open_run(here.uri(bucket))
            run.put(run.path(path), data)
        here.settings = [
            f"images.root={here.uri('media')}",
            f"images.allow=[{json.dumps(here.uri('more/public'))}]",
            f"lineup.voters={json.dumps([voter('llama-3b')])}",
            "lineup.captioner.resources.cpus=0.2", "training.variants=[]", "evaluation.resamples=10",
        ]  # fmt: skip
        yield here


class Output:
    """Runs jobs in this process, and keeps all that they print and log."""

    def __init__(self, capture: pytest.CaptureFixture[str], log: pytest.LogCaptureFixture) -> None:
        self._capture = capture
        self._log = log
        self.text = ""

    def job(self, name: str, *arguments: str, settings: list[str]) -> tuple[int, str]:
        """Run a job; return its exit code and its output."""
        argv = [*arguments, "--quiet", "--set", *settings]
        code = main(f"{name}.", JOBS[name], source=True, status=True, argv=argv)
        said = "".join(self._capture.readouterr()) + self._log.text
        self._log.clear()
        self.text += said
        return code, said


@pytest.fixture
def output(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Output:
    caplog.set_level(logging.DEBUG)
    return Output(capfd, caplog)


def _decoded(name: str, data: bytes) -> str:
    """A file as text: its bytes, and for Parquet also its rows and its footer."""
    text = data.decode("utf-8", "replace")
    if name.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(data))
        columns = [column for column in table.column_names if not pa.types.is_binary(table.schema.field(column).type)]
        text += f"{table.select(columns).to_pylist()} {table.schema.metadata}"
    return text


def _everything(run: Run) -> dict[str, str]:
    """All files of a run, by path within it."""
    infos = run.fs.get_file_info(pafs.FileSelector(run.root, recursive=True))
    paths = [info.path for info in infos if info.is_file]
    return {path.removeprefix(f"{run.root}/"): _decoded(path, run.read_bytes(path)) for path in paths}


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_and_its_output_contain_no_keys(world: World, output: Output) -> None:
    run, source = world.uri("runs/one"), world.uri("source/set")
    for name, *more in (
        ("ingest", "--source", source), ("ingest", "--source", source, "--plan"), ("caption",), ("caption", "--plan"),
        ("caption", "--status"), ("evaluate", "--plan"), ("evaluate",),
    ):  # fmt: skip
        code, said = output.job(name, "--run", run, *more, settings=world.settings)
        assert code == COMPLETE, said
    opened = open_run(run)
    held = _everything(opened)
    assert {name.split("/")[0] for name in held} >= {"images", "views", "rejects", "captions", "report", "summary"}
    assert [name for name, text in held.items() if MARK.search(text)] == []
    assert MARK.findall(output.text) == []
    assert "s3://runs/one" in output.text
    # Real images came from all three buckets, each with its own options.
    assert opened.read("images").num_rows == 3
    reasons = {row["source"]: row["reason"] for row in opened.read("rejects").to_pylist()}
    assert {source: reason.split(":")[0] for source, reason in reasons.items()} == {
        "images/lost.png": "missing file", "images/page.png": "not an image",
        "s3://more/private/3.png": "refused prefix",
    }  # fmt: skip
    locations = {row["location"] for row in opened.read("rejects").to_pylist()}
    assert locations <= {f"s3://source/set/rows.json:{number}" for number in range(1, 7)}
    node: Any = ray._private.worker._global_node
    logs = [path for path in Path(node.get_logs_dir_path()).rglob("*") if path.is_file()]
    texts = {path.name: path.read_text(errors="replace") for path in logs}
    assert [name for name, text in texts.items() if MARK.search(text)] == []

    # Other keys for the same places have nothing read or fetched again.
    newer = [one.replace("FAKEKEY", "FAKEKEYNEW") for one in world.settings]
    code, said = output.job("ingest", "--run", run, "--source", source.replace("FAKEKEY", "FAKEKEYNEW"), settings=newer)
    assert code == COMPLETE
    summary = opened.read_json("summary/ingest.json")
    assert (summary["parsed_rows"], summary["fetched"]) == (0, 0)


FAILURES: dict[str, tuple[str, str, list[str], int, str]] = {
    "no such source": ("{source}/nothing", "{run}", [], WRONG_ARGUMENTS, "there is no source s3://source/nothing"),
    "no such bucket of the source": ("{nowhere}/x", "{run}", [], WRONG_ARGUMENTS, "s3://nowhere/x"),
    "refused bucket": ("{source}/set", "{run}", ["fault=403"], WRONG_ARGUMENTS, "check the credentials"),
    "wrong keys": ("{source}/set", "{run}", ["fault=key"], WRONG_ARGUMENTS, "check the credentials"),
    "unknown scheme of the source": (
        "foo://FAKEKEY:fakesecret@b/x?tok=fakesecret1", "{run}", [], WRONG_ARGUMENTS, "foo://b/x"
    ),
    "refused bucket of the run": ("{source}/set", "{run}", ["fault=run"], FAILED, "check the credentials"),
    "unknown scheme of the run": ("{source}/set", "foo://FAKEKEY:fakesecret@b/x", [], WRONG_ARGUMENTS, "foo://b/x"),
    "option that there is not": (
        "s3://source/set?session_token=fakesecret1", "{run}", [], WRONG_ARGUMENTS, "session_token"
    ),
    "option without a name": ("s3://source/set?fakesecret1", "{run}", [], WRONG_ARGUMENTS, "s3://source/set"),
    "slash in the secret": ("s3://FAKEKEY:fake/secretfakesecret@b/x", "{run}", [], WRONG_ARGUMENTS, "s3://b/x"),
    "question mark in the secret": ("s3://FAKEKEY:ab?fakesecret@b/x", "{run}", [], WRONG_ARGUMENTS, "s3://b/x"),
    "space in the secret": ("s3://FAKEKEY:ab fakesecret@b/x", "{run}", [], WRONG_ARGUMENTS, "s3://b/x"),
    "keys of Google's store": ("gs://FAKEKEY:fakesecret@b/x", "{run}", [], WRONG_ARGUMENTS, "gs://b/x"),
    "keys of Azure's store": (
        "abfs://acc:fakesecret@b/x?client_secret=fakesecret1", "{run}", [], WRONG_ARGUMENTS, "abfs://b/x"
    ),
    "web address": ("https://FAKEKEY:fakesecret@h/x?sig=fakesecret1", "{run}", [], WRONG_ARGUMENTS, "https://h/x"),
    "unknown scheme of images.root": (
        "{source}/set", "{run}", ["images.root=foo://FAKEKEY:fakesecret@b/x"], WRONG_ARGUMENTS, "images: root: foo://b/x"
    ),
    "unknown scheme in images.allow": (
        "{source}/set", "{run}", ["images.allow=['foo://FAKEKEY:fakesecret@b/x']"], WRONG_ARGUMENTS, "allow: foo://b/x"
    ),
    "images.allow that is no list": (
        "{source}/set", "{run}", ["images.allow=s3://FAKEKEY:fakesecret@b/x"], WRONG_ARGUMENTS, "images.allow"
    ),
    "no profile": (
        "{source}/set", "{run}", ["profile=s3://FAKEKEY:fakesecret@b/x.yaml?fakesecret=1"], WRONG_ARGUMENTS, "s3://b/x.yaml"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("source", "run", "settings", "code", "message"), FAILURES.values(), ids=FAILURES)
def test_a_failure_shows_no_keys(
    world: World, output: Output, source: str, run: str, settings: list[str], code: int, message: str
) -> None:
    places = {
        "{source}": "s3://FAKEKEY:fakesecret%2F1@source", "{run}": world.uri("runs/other"),
        "{nowhere}": "s3://FAKEKEY:fakesecret%2F1@nowhere",
    }  # fmt: skip
    options = f"?endpoint_override=127.0.0.1:{world.store.port}&scheme=http&region=us-east-1"
    for name, uri in places.items():
        source = source.replace(name, uri) + (options if source.startswith(name) and name != "{run}" else "")
        run = run.replace(name, uri)
    arguments = ["--source", source, "--run", run]
    given = [one for one in settings if one.startswith(("images.", "lineup"))]
    for one in settings:
        name, _, value = one.partition("=")
        if name == "fault":
            world.store.fault("403" if value == "run" else value, only="/runs" if value == "run" else "/source")
        elif name == "profile":
            arguments += ["--profile", value]
    try:
        found, said = output.job("ingest", *arguments, settings=given or ["votes.audit=0.1"])
    finally:
        world.store.heal()
    assert found == code, said
    assert message in said
    assert MARK.findall(said) == []


@pytest.mark.usefixtures("ray_cluster")
def test_an_image_root_that_cannot_be_read_shows_no_keys(world: World, output: Output) -> None:
    settings = [f"images.root={world.uri('nowhere/x')}", *world.settings[1:]]
    run = world.uri("runs/two")
    world.store.fault("403", only="/nowhere")
    try:
        code, said = output.job("ingest", "--run", run, "--source", world.uri("source/set"), settings=settings)
    finally:
        world.store.heal()
    assert code == COMPLETE, said
    reasons = {row["source"]: row["reason"] for row in open_run(run).read("rejects").to_pylist()}
    assert reasons["images/0.png"].startswith("unreadable path")
    assert MARK.findall(said) == []
    assert [name for name, text in _everything(open_run(run)).items() if MARK.search(text)] == []


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/a/b?c@d", "/a/b?c@d"),
        ("s3://b/x", "s3://b/x"),
        ("s3://b/a@b?x=1", "s3://b/a@b"),
        ("s3://key:secret@b/x?y=1", "s3://b/x"),
        ("s3://key:sec@ret/1@b/x?y=1", "s3://b/x"),
        ("s3://key:sec/ret@b/x", "s3://b/x"),
        ("s3://key:sec?ret@b/x", "s3://b/x"),
        ("gs://anonymous@b/a@b", "gs://b/a@b"),
        ("hdfs://name:8020/a@b/x", "hdfs://name:8020/a@b/x"),
        ("hdfs://user@name:8020/x", "hdfs://name:8020/x"),
    ],
)
def test_the_public_form_of_a_location(location: str, expected: str) -> None:
    assert public_uri(location) == expected


def test_uris_in_a_text_lose_their_keys() -> None:
    assert without_credentials("cannot open 's3://k:s@b/x?y=1': no") == "cannot open 's3://b/x': no"


def test_a_profile_is_shown_without_keys(world: World) -> None:
    shown = load_profile("mini", world.settings[:2])
    assert MARK.findall(repr(shown.images)) == []
