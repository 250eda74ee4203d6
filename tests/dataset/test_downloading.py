"""Images by URL, against a real server on the loopback addresses."""

from __future__ import annotations

import gzip
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from aiohttp.resolver import ThreadedResolver

from caslie_ray.dataset import _downloading
from caslie_ray.dataset._fetching import Outcome, read_images
from caslie_ray.dataset._files import Files
from caslie_ray.dataset._headers import request_headers
from caslie_ray.dataset._roots import Root
from caslie_ray.dataset._urls import is_public
from caslie_ray.profiles import ImageSettings
from tests.dataset.world import Site, drip, png

OPEN = ImageSettings(allow_private=True, timeout_s=1.0, connect_timeout_s=0.5, retries=2)
CLOSED = OPEN.model_copy(update={"allow_private": False})
HEADERS = request_headers(OPEN, {})


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_downloading, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def one_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.2 passes for an address of the public internet."""
    monkeypatch.setattr(_downloading, "is_public", lambda address: address == "127.0.0.2" or is_public(address))


def fetch(url: str, limits: ImageSettings = OPEN) -> Outcome:
    return read_images([f"url:{url}"], limits, HEADERS)[0]


def test_an_image_is_downloaded(site: Site) -> None:
    site.pages["/a.png"] = png()
    done = fetch(site.url("/a.png"))
    assert done.image is not None
    assert done.image.data == png()


def test_the_content_counts_not_its_declared_type(site: Site) -> None:
    site.pages["/a"] = lambda h: h.answer(200, png(), Content_Type="text/html")
    site.pages["/b"] = lambda h: h.answer(200, b"<html>sorry</html>", Content_Type="image/png")
    assert fetch(site.url("/a")).image is not None
    assert "an HTML page" in (fetch(site.url("/b")).reason or "")


@pytest.mark.parametrize(("status", "final"), [(404, True), (403, True), (410, True), (429, False), (503, False)])
def test_a_status_decides_whether_to_retry(site: Site, status: int, final: bool) -> None:
    site.pages["/a"] = lambda h: h.answer(status)
    done = fetch(site.url("/a"))
    assert (done.reason or "").startswith(f"HTTP {status}: 127.0.0.1")
    assert done.retryable is not final
    assert site.count("/a") == (1 if final else 3)


def test_a_server_that_recovers_is_waited_for(site: Site) -> None:
    site.pages["/a"] = lambda h: h.answer(500) if site.count("/a") < 3 else h.answer(200, png())
    assert fetch(site.url("/a")).image is not None


def test_retry_after_is_honoured(site: Site) -> None:
    def page(handler: Any) -> None:
        times.append(time.monotonic())
        handler.answer(200, png()) if len(times) > 1 else handler.answer(429, Retry_After="1")

    times: list[float] = []
    site.pages["/a"] = page
    assert fetch(site.url("/a")).image is not None
    assert times[1] - times[0] >= 1.0


def test_a_server_that_asks_for_a_long_wait_is_left_to_the_next_run(site: Site) -> None:
    site.pages["/a"] = lambda h: h.answer(503, Retry_After="3600")
    site.pages["/b"] = lambda h: h.answer(503, Retry_After=formatdate(time.time() + 3600, usegmt=True))
    for path in ("/a", "/b"):
        assert fetch(site.url(path)).retryable
        assert site.count(path) == 1


def test_a_slow_server_runs_into_the_time_limit(site: Site) -> None:
    site.pages["/a"] = lambda h: time.sleep(1.5)
    site.pages["/b"] = drip(1.5)
    limits = OPEN.model_copy(update={"timeout_s": 0.3, "retries": 0})
    begun = time.monotonic()
    slow, endless = read_images([f"url:{site.url(path)}" for path in ("/a", "/b")], limits, HEADERS)
    assert time.monotonic() - begun < 1.5
    for done in (slow, endless):
        assert (done.reason or "").startswith("time-out: 127.0.0.1 took more than 0.3 s")
        assert done.retryable


def test_the_byte_limit_applies_while_the_body_arrives(site: Site) -> None:
    limits = OPEN.model_copy(update={"max_bytes": 100_000})
    site.pages["/announced"] = lambda h: h.answer(200, b"", Content_Length="100001")
    site.pages["/flood"] = lambda h: flood(h)
    bomb = gzip.compress(bytes(50_000_000))
    site.pages["/bomb"] = lambda h: h.answer(200, bomb, Content_Encoding="gzip")

    def flood(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(bytes(100_000))

    assert len(bomb) < limits.max_bytes
    for path in ("/announced", "/flood", "/bomb"):
        done = fetch(site.url(path), limits)
        assert (done.reason or "").startswith("too many bytes"), path
        assert not done.retryable


def test_packed_bodies_are_unpacked(site: Site) -> None:
    site.pages["/a"] = lambda h: h.answer(200, gzip.compress(png()), Content_Encoding="gzip")
    assert fetch(site.url("/a")).image is not None


def test_a_broken_connection_is_retried(site: Site) -> None:
    def page(handler: Any) -> None:
        if site.count("/a") == 1:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000000")
            handler.end_headers()
            handler.wfile.write(png())
            handler.close_connection = True
        else:
            handler.answer(200, png())

    site.pages["/a"] = page
    assert fetch(site.url("/a")).image is not None


def test_refused_connections_and_unknown_hosts_are_retryable(site: Site) -> None:
    port = site.server_address[1]
    silent = fetch("http://127.0.0.1:1/a.png")
    unknown = fetch(f"http://no-such-host.invalid:{port}/a.png")
    assert (silent.reason or "").startswith("no connection: 127.0.0.1")
    assert (unknown.reason or "").startswith("host not found: no-such-host.invalid")
    assert silent.retryable
    assert unknown.retryable


def test_redirects_are_followed_so_far(site: Site) -> None:
    site.pages["/a.png"] = png()
    for step in range(8):
        target = f"/step{step + 1}" if step < 7 else "/a.png"
        site.pages[f"/step{step}"] = lambda h, to=target: h.answer(302, Location=to)
    assert fetch(site.url("/step3")).image is not None
    assert (fetch(site.url("/step0")).reason or "").startswith("too many redirects")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.com/a", "http://u:p@example.com/a"])
def test_redirects_to_what_is_no_plain_url_are_refused(site: Site, target: str) -> None:
    site.pages["/a"] = lambda h: h.answer(302, Location=target)
    done = fetch(site.url("/a"))
    assert (done.reason or "").startswith("refused redirect")
    assert not done.retryable


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "169.254.169.254", "[::ffff:127.0.0.1]"]
)
def test_addresses_of_this_machine_and_its_network_are_refused(site: Site, host: str) -> None:
    done = fetch(site.url("/a.png", host), CLOSED)
    assert (done.reason or "").startswith("refused address")
    assert not done.retryable
    assert not site.seen


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001", "017700000001"])
def test_odd_spellings_of_an_address_are_refused(site: Site, host: str) -> None:
    site.pages["/a.png"] = png()
    assert fetch(site.url("/a.png", host), CLOSED).image is None
    assert not site.seen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254"])
@pytest.mark.usefixtures("one_public")
def test_a_redirect_to_an_internal_address_is_refused(site: Site, host: str) -> None:
    site.pages["/a.png"] = png()
    site.pages["/out"] = lambda h: h.answer(302, Location=site.url("/a.png", host))
    assert fetch(site.url("/a.png", "127.0.0.2"), CLOSED).image is not None
    done = fetch(site.url("/out", "127.0.0.2"), CLOSED)
    assert (done.reason or "").startswith("refused address")
    assert {address for _, address in site.seen} == {"127.0.0.2"}


@pytest.mark.usefixtures("one_public")
def test_a_name_is_connected_to_at_the_address_that_was_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: a name that also resolves to a private address, or does so the second time, is refused."""
    asked: list[str] = []

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
        asked.append(host)
        hosts = ["127.0.0.1", "127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]
        base = {"hostname": host, "port": port, "family": 2, "proto": 6, "flags": 4}
        return [{**base, "host": one} for one in hosts]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    site.pages["/a.png"] = png()
    assert fetch(site.url("/a.png", "shop.example"), CLOSED).image is not None
    assert (fetch(site.url("/a.png", "shop.example"), CLOSED).reason or "").startswith("refused address: shop.example")
    assert site.seen == [("/a.png", "127.0.0.2")]


def test_no_more_downloads_at_once_than_allowed(site: Site) -> None:
    def page(handler: Any) -> None:
        time.sleep(0.05)
        handler.answer(200, png())

    locators = []
    for number in range(20):
        site.pages[f"/{number}"] = page
        locators.append(f"url:{site.url(f'/{number}')}")
    done = read_images(locators, OPEN.model_copy(update={"concurrency": 4}), HEADERS)
    assert all(one.image is not None for one in done)
    assert 2 <= site.open_most <= 4


def test_files_and_urls_together_in_order(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "large.png").write_bytes(bytes(20_000))
    site.pages["/b.png"] = png(2)
    names = [
        "file:/no/such/file.png", f"file:{tmp_path}/no.png", f"file:{tmp_path}/a.png", f"url:{site.url('/b.png')}",
        f"file:{tmp_path}", f"file:{tmp_path}/large.png",
    ]  # fmt: skip
    files = Files([Root.of(str(tmp_path))])
    done = read_images(names, OPEN.model_copy(update={"max_bytes": 19_999}), HEADERS, files)
    assert [one.image is not None for one in done] == [False, False, True, True, False, False]
    assert [(one.reason or "").split(":")[0] for one in done] == [
        "refused path",
        "missing file",
        "",
        "",
        "not a file",
        "too many bytes",
    ]
