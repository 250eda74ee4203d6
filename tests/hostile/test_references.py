"""Forbidden references, together with odd but valid ones, through one ingest job."""

from __future__ import annotations

import base64
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from caslie_ray.dataset import ingest, plan_ingest
from caslie_ray.dataset._files import Files
from caslie_ray.dataset._references import read_reference
from caslie_ray.dataset._roots import given_roots, roots_of
from caslie_ray.profiles import ImageSettings, load_profile
from caslie_ray.storage.run import open_run
from tests.dataset.world import category, png, write_json
from tests.measuring import measured

IMAGE = ""
OUTSIDE = "refused path"
PREFIX = "refused prefix"
URI = "refused URI"
KEY = "a2V5a2V5a2V5"

# Name, reference, start of the reject's reason (none where it is an image). {shop} is the folder of the source, {media}
# one of images.allow, {private} one that nothing allows, {port} a listener on loopback.
REFERENCES: tuple[tuple[str, str, str], ...] = (
    ("relative path", "images/a.png", IMAGE),
    ("relative path with dots", "./images/../images//a.png", IMAGE),
    ("absolute path below the source", "{shop}/images/a.png", IMAGE),
    ("file URI below the source", "file://{shop}/images/a.png", IMAGE),
    ("link within the source", "inside.png", IMAGE),
    ("name with dots", "images/..b...png", IMAGE),
    ("name with percent signs", "images/%2e%2e%2fc.png", IMAGE),
    ("name with a tilde", "images/~root.png", IMAGE),
    ("absolute path below images.allow", "{media}/d.png", IMAGE),
    ("link into images.allow", "media.png", IMAGE),
    ("data URI", "data:image/png;base64,{png}", IMAGE),
    ("absolute path", "{private}/passport.png", OUTSIDE),
    ("absolute path of nothing", "{private}/nothing.png", OUTSIDE),
    ("absolute path through the source", "{shop}/../private/passport.png", OUTSIDE),
    ("folder with the source's name as its start", "{shop}ping/passport.png", OUTSIDE),
    ("parent folder", "../private/passport.png", OUTSIDE),
    ("parent folder after a folder", "images/../../private/passport.png", OUTSIDE),
    ("link that leaves", "leaves.png", OUTSIDE),
    ("link that leaves, to nothing", "leaves-to-nothing.png", OUTSIDE),
    ("folder that is a link and leaves", "elsewhere/passport.png", OUTSIDE),
    ("parent of a link", "elsewhere/../private/passport.png", "missing file"),
    ("link to a device", "zero.png", OUTSIDE),
    ("link in a circle", "circle.png", "unreadable path"),
    ("file URI", "file://{private}/passport.png", OUTSIDE),
    ("file URI of localhost", "file://localhost{private}/passport.png", OUTSIDE),
    ("file URI in capitals", "FILE://{private}/passport.png", OUTSIDE),
    ("file URI with escaped dots", "file://{shop}/%2e%2e/private/passport.png", OUTSIDE),
    ("file URI with one slash", "file:{private}/passport.png", OUTSIDE),
    ("file URI of another host", "file://127.0.0.1{private}/passport.png", "unsupported reference"),
    ("environment of the process", "/proc/self/environ", OUTSIDE),
    ("named pipe", "images/pipe.png", "not a file"),
    ("folder", "images", "not a file"),
    ("the source's folder", ".", "not a file"),
    ("file within a file", "images/a.png/a.png", "unreadable path"),
    ("backslashes", "..\\..\\private\\passport.png", "missing file"),
    ("trailing dots", "images/a.png...", "missing file"),
    ("NUL", "images/a.png\0.jpg", "unsupported reference"),
    ("half of a surrogate pair", "images/\ud800.png", "missing file"),
    ("name of 300 characters", "n" * 300, "unsupported reference"),
    ("path of 60,000 folders", "a/" * 60_000, "unsupported reference"),
    ("S3 at an endpoint", "s3://any/x.png?endpoint_override=127.0.0.1:{port}&scheme=http", URI),
    ("S3 at an endpoint, in capitals", "S3://any/x.png?endpoint_override=127.0.0.1:{port}&scheme=http", URI),
    ("Google's store at an endpoint", "gs://any/x.png?endpoint_override=127.0.0.1:{port}&scheme=http", URI),
    (
        "Azure's store at an endpoint",
        "abfs://acc:{key}@box/x.png?blob_storage_authority=127.0.0.1:{port}&dfs_storage_authority=127.0.0.1:{port}"
        "&enable_tls=false",
        URI,
    ),
    ("S3 with keys", "s3://key:{key}@any/x.png", URI),
    ("S3 with a user", "s3://any@127.0.0.1:{port}/x.png", URI),
    ("S3 with an empty user", "s3://@any/x.png", URI),
    ("another bucket", "s3://another-bucket/private.jpg", PREFIX),
    ("bucket with a port", "s3://127.0.0.1:{port}/x.png", PREFIX),
    ("no bucket", "s3:///x.png", PREFIX),
    ("Hadoop on loopback", "hdfs://127.0.0.1:{port}/x.png", PREFIX),
    ("viewfs", "viewfs://127.0.0.1:{port}/x.png", PREFIX),
    ("gopher", "gopher://127.0.0.1:{port}/x.png", "unsupported reference"),
    ("URL of loopback", "http://127.0.0.1:{port}/x.png", "refused address"),
    ("URL of loopback as a number", "http://2130706433:{port}/x.png", "refused address"),
    ("URL of localhost", "http://localhost:{port}/x.png", "refused address"),
    ("URL of mapped loopback", "http://[::ffff:127.0.0.1]:{port}/x.png", "refused address"),
    ("URL of metadata", "http://169.254.169.254/latest/meta-data", "refused address"),
    ("URL of Azure's host", "http://168.63.129.16/machine", "refused address"),
    ("URL of a site-local address", "http://[fec0::1]/x.png", "refused address"),
    ("URL without a scheme", "//127.0.0.1:{port}/x.png", "refused address"),
    ("URL with a password", "http://user:{key}@127.0.0.1:{port}/x.png", "credentials in URL"),
)


@dataclass
class Listener:
    """Accepts connections on loopback and says nothing."""

    port: int
    connections: list[Any] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Listener(server.getsockname()[1])

        def accept() -> None:
            with suppress(OSError):
                while True:
                    found.connections.append(server.accept())

        Thread(target=accept, daemon=True).start()
        yield found
        for connection, _ in found.connections:
            connection.close()


def _draw(folder: Path) -> dict[str, str]:
    """Write the files that references lead to; return the names of the folders."""
    shop, media, private = (folder / name for name in ("shop", "media", "private"))
    for path in (shop / "images", media, private, folder / "shopping"):
        path.mkdir(parents=True)
    for number, path in enumerate(
        (
            *(shop / "images" / name for name in ("a.png", "..b...png", "%2e%2e%2fc.png", "~root.png")),
            *(media / "d.png", private / "passport.png", folder / "shopping/passport.png"),
        )
    ):
        path.write_bytes(png(number))
    os.mkfifo(shop / "images/pipe.png")
    links: dict[str, str | Path] = {
        "inside.png": "images/a.png", "media.png": media / "d.png", "elsewhere": private, "zero.png": "/dev/zero",
        "leaves.png": "../private/passport.png", "leaves-to-nothing.png": "../private/nothing.png",
        "circle.png": "circle.png",
    }  # fmt: skip
    for name, target in links.items():
        (shop / name).symlink_to(target)
    return {"shop": str(shop), "media": str(media), "private": str(private)}


@pytest.mark.usefixtures("ray_cluster")
def test_a_reference_cannot_reach_forbidden_files_or_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = _draw(tmp_path)
    # In this process, which is the driver; the workers have their own.
    for name in ("keys", "read"):
        monkeypatch.setattr(Files, name, None)
    filled = {"key": KEY, "png": base64.b64encode(png(9)).decode(), **folders}
    with listening() as listener:
        values = [_fill(value, port=str(listener.port), **filled) for _, value, _ in REFERENCES]
        rows = [category(name, value) for (name, _, _), value in zip(REFERENCES, values, strict=True)]
        source = write_json(tmp_path / "shop/rows.json", rows)
        profile = load_profile("mini", [f"images.allow=[{folders['media']}]", "images.retries=0"])
        run = open_run(str(tmp_path / "run"))
        started = time.monotonic()
        summary = ingest(run, [source], profile, quiet=True)
        took_s = time.monotonic() - started
        assert listener.connections == []
    assert took_s < 60
    reasons = {row["location"]: row["reason"] for row in run.read("rejects").to_pylist()}
    found = {name: reasons.get(f"{source}:{number}", IMAGE) for number, (name, _, _) in enumerate(REFERENCES, 1)}
    wrong = {
        name: found[name]
        for name, _, reason in REFERENCES
        if not found[name].startswith(reason) or (reason == IMAGE and found[name])
    }
    assert wrong == {}
    assert summary.rows == len(REFERENCES)
    # What there is outside makes no difference.
    assert found["absolute path"] == found["absolute path of nothing"]
    assert found["link that leaves"] == found["link that leaves, to nothing"]
    assert not any(folders["private"] in reason for reason in found.values())
    images = set(run.read("images", ["image"])["image"].to_pylist())
    assert images == {png(number) for number in (0, 1, 2, 3, 4, 9)}
    plan = plan_ingest(run, [source], profile)
    assert (plan.unread, plan.to_fetch) == (0, 0)
    again = ingest(run, [source], profile, quiet=True)
    assert (again.parsed_rows, again.fetched, again.written_files) == (0, 0, 0)


def _fill(text: str, **values: str) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text


def judged(value: str) -> str:
    settings = ImageSettings(allow=("/media", "s3://bucket/shop"))
    roots = roots_of("/shop/rows.json", "", False, given_roots(settings))
    return read_reference(value, roots, "rows.json:1, image 1").locator


@pytest.mark.parametrize(
    "value",
    ["../" * 10_000_000, "s3://bucket/" + "%2e%2e/" * 5_000_000, "file:" + "/" * 30_000_000, "s3" + ":" * 30_000_000],
    ids=["parents", "escaped parents", "slashes", "colons"],
)
def test_a_long_reference_is_judged_at_once(value: str) -> None:
    found = measured(judged, value)
    assert found.value.startswith("bad:unsupported reference")
    assert found.cost.seconds < 5
    assert found.cost.mib < 400
