"""Request headers: a server that wants some, hosts that must not see some, and what is kept of them in a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import caslie_ray
from caslie_ray.dataset import _references_ledger, ingest
from caslie_ray.dataset._fetching import Outcome, read_images
from caslie_ray.dataset._headers import header_settings, request_headers, same_origin
from caslie_ray.dataset._references_ledger import Ledger, write_fetched
from caslie_ray.profiles import ImageSettings, Profile, ProfileError, load_profile
from caslie_ray.storage.run import open_run
from tests.dataset.world import Site, category, png, write_json

SECRET = "s3cret-of-the-shop"
AGENT = "Mozilla/5.0 (compatible; shop; rows=1,2)"


def settings(**images: Any) -> ImageSettings:
    return ImageSettings(allow_private=True, timeout_s=5.0, retries=0, **images)


def fetch(url: str, limits: ImageSettings, **environment: str) -> Outcome:
    return read_images([f"url:{url}"], limits, request_headers(limits, environment))[0]


class Seen:
    """Pages that note the headers of requests, by path."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.headers: dict[str, list[dict[str, str]]] = {}

    def image(self, path: str) -> str:
        return self._page(path, lambda handler: handler.answer(200, png()))

    def redirect(self, path: str, target: str) -> str:
        return self._page(path, lambda handler: handler.answer(302, Location=target))

    def _page(self, path: str, answer: Any) -> str:
        def page(handler: Any) -> None:
            self.headers.setdefault(path, []).append({name.lower(): value for name, value in handler.headers.items()})
            answer(handler)

        self.site.pages[path] = page
        return self.site.url(path)


def choosy(handler: Any) -> None:
    """A shop that answers browsers which come from its own page."""
    sent = handler.headers
    fine = sent["User-Agent"] == AGENT and sent["Referer"] == "https://shop.example/" and sent["Host"]
    handler.answer(*((200, png()) if fine else (403, b"")))


def test_a_request_identifies_its_client(site: Site) -> None:
    seen = Seen(site)
    assert fetch(seen.image("/a"), settings()).image is not None
    (sent,) = seen.headers["/a"]
    assert sent["user-agent"] == f"caslie_ray/{caslie_ray.__version__}"
    assert sent["accept"].startswith("image/*")
    assert not {"referer", "cookie", "authorization"} & set(sent)
    assert fetch(seen.image("/b"), settings(headers={"user-agent": AGENT, "ACCEPT": "*/*"})).image is not None
    (sent,) = seen.headers["/b"]
    assert (sent["user-agent"], sent["accept"], sent["accept-encoding"]) == (AGENT, "*/*", "identity")


@pytest.mark.usefixtures("ray_cluster")
def test_refused_images_are_fetched_with_other_headers_and_no_others(tmp_path: Path, site: Site) -> None:
    site.pages["/plain"] = png(1)
    site.pages["/choosy"] = choosy
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [site.url("/plain"), site.url("/choosy"), "broken.png"]
    source = write_json(tmp_path / "rows.json", [category(f"t{n}", image) for n, image in enumerate(images)])
    run = open_run(str(tmp_path / "run"))

    def bring(*headers: str) -> tuple[int, int]:
        profile = load_profile("mini", ["images.allow_private=true", "images.retries=0", *headers])
        summary = ingest(run, [source], profile, quiet=True)
        return summary.images, summary.fetched

    agent, referer = f"images.headers.User-Agent={AGENT}", "images.headers.Referer=https://shop.example/"
    assert bring() == (1, 3)
    assert bring() == (1, 0)
    assert bring(agent) == (1, 1), "what was refused, and nothing else"
    assert bring(agent, referer) == (2, 1)
    assert bring("images.headers.User-Agent=other") == (2, 0), "what is there is not fetched again"
    assert (site.count("/plain"), site.count("/choosy")) == (1, 3)


def test_credentials_are_sent_only_to_their_hosts(site: Site) -> None:
    """127.0.0.1 and 127.0.0.2 are two hosts."""
    seen = Seen(site)
    headers = {
        "Authorization": "Bearer ${SHOP}",
        "Cookie": "a=b",
        "X-Api-Key": "k",
        "X-Shop": "${SHOP}",
        "Referer": "r",
    }
    limits = settings(headers=headers, credential_hosts=["127.0.0.1"])
    secrets = {"authorization", "cookie", "x-api-key", "x-shop"}

    def sent(url: str, path: str) -> dict[str, str]:
        assert fetch(url, limits, SHOP=SECRET).image is not None
        found = seen.headers[path][-1]
        assert found["referer"] == "r"
        return {name: value for name, value in found.items() if name in secrets}

    there = seen.image("/a")
    everything = {"authorization": f"Bearer {SECRET}", "cookie": "a=b", "x-api-key": "k", "x-shop": SECRET}
    assert sent(there, "/a") == everything
    assert sent(site.url("/a", "127.0.0.2"), "/a") == {}
    assert sent(seen.redirect("/same", "/a"), "/a") == everything
    assert sent(seen.redirect("/away", site.url("/a", "127.0.0.2")), "/a") == {}
    # Once it was elsewhere it may be anybody's redirect.
    seen.redirect("/back", there)
    assert sent(seen.redirect("/out", site.url("/back", "127.0.0.2")), "/a") == {}
    assert {"authorization"} <= set(seen.headers["/out"][0])


@pytest.mark.parametrize(
    ("url", "other", "same"),
    [
        ("http://a.example/x", "http://a.example/y", True),
        ("http://a.example/x", "https://a.example/x", True),
        ("https://a.example/x", "http://a.example/x", False),
        ("https://a.example/x", "https://a.example:8443/x", False),
        ("https://a.example:443/x", "https://a.example/x", True),
        ("https://a.example/x", "https://b.a.example/x", False),
    ],
)
def test_which_redirects_stay_with_their_server(url: str, other: str, same: bool) -> None:
    assert same_origin(url, other) == same


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("shop.example", True), ("cdn.shop.example", True), ("SHOP.example", True), ("xn--lger-loa.example", True),
        ("shop.example.org", False), ("myshop.example", False), ("example", False), ("internal", True),
        ("x.internal", False),
    ],
)  # fmt: skip
def test_which_hosts_are_sent_credentials(host: str, trusted: bool) -> None:
    hosts = ["Shop.example", "läger.example", "internal"]
    url = f"https://{host.lower()}/a.png"
    made = request_headers(settings(headers={"Cookie": "a"}, credential_hosts=hosts), {})
    assert made.go_to([url]) == made.are_for(url) == trusted
    assert not request_headers(settings(headers={"Referer": "a"}, credential_hosts=hosts), {}).are_for(url)


@pytest.mark.parametrize("allow_private", [False, True])
def test_credentials_are_sent_over_https_unless_private_addresses_are_allowed(allow_private: bool) -> None:
    limits = ImageSettings(
        allow_private=allow_private, headers={"Cookie": "a"}, credential_hosts=("shop.example", "xn--lger-loa.example")
    )
    made = request_headers(limits, {})
    for host in limits.credential_hosts:
        plain, encrypted = f"http://{host}/a", f"https://{host}/a"
        assert made.go_to([encrypted])
        assert made.go_to([plain]) == allow_private
        assert made.go_to([plain, encrypted]), "a redirect to https of the same host"
        assert not made.go_to([encrypted, plain])
        assert not made.go_to([encrypted, "https://cdn.example/a", encrypted])


@pytest.mark.usefixtures("ray_cluster")
def test_a_secret_is_nowhere_in_the_run_and_a_changed_one_is_tried(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = f"Bearer {SECRET}"
    site.pages["/a"] = lambda h: h.answer(*((200, png()) if h.headers["Authorization"] == right else (401, b"")))
    source = write_json(tmp_path / "rows.json", [category("t", site.url("/a"))])
    run = open_run(str(tmp_path / "run"))
    chosen = load_profile(
        "mini",
        [
            "images.allow_private=true",
            "images.headers.Authorization=Bearer ${SHOP}",
            "images.credential_hosts=[127.0.0.1]",
        ],
    )
    with pytest.raises(ProfileError, match=r"images\.headers\.Authorization: the environment variable SHOP is not set"):
        ingest(run, [source], chosen, quiet=True)
    for value, images in (("wrong-one", 0), (f"{SECRET}\n", 1)):
        monkeypatch.setenv("SHOP", value)
        assert ingest(run, [source], chosen, quiet=True).images == images
    assert SECRET not in repr(chosen) + caplog.text + repr(request_headers(chosen.images, {"SHOP": SECRET}))
    files = [path for path in Path(run.root).rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert not any(text.encode() in path.read_bytes() for text in (SECRET, "wrong-one")), path
    assert header_settings(settings(headers={"Cookie": "a"}, credential_hosts=["b.c"])) == header_settings(
        settings(headers={"cookie": "z"}, credential_hosts=["b.c"])
    )


@pytest.mark.usefixtures("ray_cluster")
def test_images_that_a_stale_credential_did_not_get_are_fetched_with_a_fresh_one(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.1 is the shop. Without a login it sends a page, a redirect to another host, too many bytes, or 404."""

    def with_login(otherwise: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda h: h.answer(200, png()) if h.headers["Cookie"] == "fresh" else otherwise(h)

    site.pages["/login"] = lambda h: h.answer(200, b"<html>log in</html>")
    site.pages["/page"] = with_login(lambda h: h.answer(302, Location="/login"))
    site.pages["/away"] = with_login(lambda h: h.answer(302, Location=site.url("/refused", "127.0.0.2")))
    site.pages["/refused"] = lambda h: h.answer(403)
    site.pages["/large"] = with_login(lambda h: h.answer(200, b"", Content_Length="999999999"))
    site.pages["/hidden"] = with_login(lambda h: h.answer(404))
    shop = ["/page", "/away", "/large", "/hidden"]
    urls = [*map(site.url, shop), site.url("/login", "127.0.0.2")]
    source = write_json(tmp_path / "rows.json", [category(f"t{n}", url) for n, url in enumerate(urls)])
    run = open_run(str(tmp_path / "run"))
    own = ["images.headers.Cookie=${C}", "images.credential_hosts=[127.0.0.1]"]
    chosen = load_profile("mini", ["images.allow_private=true", "images.retries=0", *own])

    def bring(cookie: str) -> tuple[int, int]:
        monkeypatch.setenv("C", cookie)
        summary = ingest(run, [source], chosen, quiet=True)
        return summary.images, summary.fetched

    assert bring("stale") == (0, 5)
    assert bring("fresh") == (1, 4), "the same bytes are one image; 127.0.0.2 is sent no credential"
    assert bring("fresh") == (1, 0)


def test_failures_on_hosts_without_credentials_stay_final(site: Site) -> None:
    site.pages["/page"] = b"<html>log in</html>"
    site.pages["/away"] = lambda h: h.answer(302, Location=site.url("/page", "127.0.0.1"))
    limits = settings(headers={"Cookie": "a", "Referer": "b"}, credential_hosts=["127.0.0.1"])
    assert fetch(site.url("/page"), limits).retryable
    for url in (site.url("/page", "127.0.0.2"), site.url("/away", "127.0.0.2")):
        assert not fetch(url, limits).retryable
    assert not fetch(site.url("/page"), settings(headers={"Referer": "b"})).retryable


def test_settings_of_headers_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[ImageSettings] = []

    def counted(images: ImageSettings) -> str:
        computed.append(images)
        return header_settings(images)

    monkeypatch.setattr(_references_ledger, "header_settings", counted)
    run, limits = open_run(str(tmp_path / "run")), settings(headers={"Referer": "a"})
    keys = [f"url:http://shop.example/{n}" for n in range(5)]
    write_fetched(run, limits, [(key, Outcome(None, "gone")) for key in keys])
    assert len(computed) == 1
    ledger = Ledger(run, limits)
    ledger.compact({key: found for key in keys[:3] if (found := ledger.result(key)) is not None})
    assert len(computed) == 2
    ledger = Ledger(run, limits)
    assert [ledger.result(key) is not None for key in keys] == [True, True, True, False, False]
    assert Ledger(run, settings(headers={"Referer": "b"})).result(keys[0]) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("{Host: a}", "Host is set by the client itself"),
        ("{content-LENGTH: '1'}", "content-LENGTH is set by the client itself"),
        ("{Connection: close}", "Connection is set by the client itself"),
        ("{Proxy-Authorization: a}", "Proxy-Authorization is set by the client itself"),
        ("{'User Agent': a}", "'User Agent' is no name of a header"),
        ("{'': a}", "'' is no name of a header"),
        ("{'Bad:': a}", "'Bad:' is no name of a header"),
        ('{Referer: "a\\r\\nHost: b"}', "Referer: the value has a line break"),
        ("{User-Agent: läufer}", "User-Agent: the value has a line break or another character"),
        ("{Referer: '${A B}'}", "Referer: a value from the environment is written"),
        ("{Accept: a, accept: b}", "accept is set twice"),
        ("{X-Auth-Token: topsecret}", "headers X-Auth-Token are credentials; name the hosts"),
        ("{X-Shop: '${SHOP}'}", "headers X-Shop are credentials; name the hosts"),
    ],
)
def test_headers_that_are_refused(given: str, reason: str) -> None:
    with pytest.raises(ProfileError) as refused:
        load_profile("mini", [f"images.headers={given}"])
    assert reason in str(refused.value)
    assert given not in str(refused.value)
    assert "topsecret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "images: {headers: {X-Api-Key: 8374628374}}",
        "images: {headers: {X-Api-Key: 8374628374, Bad Name: a}}",
        "images: {headers: {X-Api-Key: [8374628374]}}",
        "images: {headers: ['X-Api-Key: 8374628374']}",
        "images: {headers: X-Api-Key:8374628374}",
        "images: {headers: {X-Api-Key: a: 8374628374}}",
        "images: {header: {X-Api-Key: 8374628374}}",
        "images: [{headers: {X-Api-Key: 8374628374}}]",
        "votes: {headers: {X-Api-Key: 8374628374}}",
        "votes: {images: {headers: {X-Api-Key: 8374628374}}}",
        "image: {headers: {X-Api-Key: 8374628374}}",
    ],
)
def test_a_value_of_a_header_in_a_file_is_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: mini\n{text}\n")
    with pytest.raises(ProfileError, match=r"own\.yaml: ") as refused:
        load_profile(str(path))
    assert "8374628374" not in str(refused.value)


@pytest.mark.parametrize(
    "override",
    [
        "images.headers.X-Api-Key=8374628374",
        "images.headers.X-Api-Key: 8374628374",
        "images.headers.X-Api-Key=a: b: 8374628374",
        "images.headers={X-Api-Key: 8374628374}",
        "images.headers=[8374628374]",
        "images={headers: {X-Api-Key: 8374628374}}",
        "images.header.X-Api-Key=8374628374",
        "image.headers.X-Api-Key=8374628374",
        "images.headers.Cookie.x=8374628374",
    ],
)
def test_a_value_of_a_header_on_the_command_line_is_not_shown(override: str) -> None:
    with pytest.raises(ProfileError, match=r"--set image.*…") as refused:
        load_profile("mini", ["images.headers={Cookie: 8374628374}", override])
    assert "8374628374" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        "https://shop.example", "*.shop.example", "", ".", "me@shop.example", "shop.example:8443", "127.0.0.1:80",
        "shop.example/images", "ü..de", "a..example", f"{'ü' * 70}.example",
    ],
)  # fmt: skip
def test_hosts_that_are_refused(host: str) -> None:
    with pytest.raises(ProfileError, match=r"credential_hosts: .* is no host.* port"):
        load_profile("mini", [f"images.credential_hosts={json.dumps([host])}"])


def test_a_line_break_from_the_environment_is_refused_and_not_shown(profile: Profile) -> None:
    limits = settings(headers={"X-Shop": "${SHOP}"}, credential_hosts=["shop.example"])
    with pytest.raises(ProfileError, match=r"images\.headers\.X-Shop: the value has a line break") as refused:
        request_headers(limits, {"SHOP": f"{SECRET}\r\nHost: evil.example"})
    assert SECRET not in str(refused.value)
