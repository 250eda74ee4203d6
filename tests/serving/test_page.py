"""The page in headless Chromium: an example of each task, an image from disk, a problem, and a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from caslie_ray.tasks import TASKS
from tests.evaluation.browser import PHONE, Page, chromium, complaints, requests, screen
from tests.serving.server import Server
from tests.serving.test_bad_requests import png

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def page(chrome: webdriver.Chrome, server: Server, tmp_path: Path) -> Page:
    chrome.get(f"{server.url}/")
    found = Page(chrome, tmp_path)
    _until(found, "document.querySelectorAll('#examples button').length > 0")
    return found


def _until(page: Page, condition: str, seconds: float = 60.0) -> None:
    WebDriverWait(page.chrome, seconds, poll_frequency=0.1).until(lambda _: page.run(condition))


def _ask(page: Page) -> None:
    page.click("#ask")
    _until(page, "!document.getElementById('ask').disabled")


@pytest.mark.parametrize("task", TASKS)
def test_an_example_is_answered(page: Page, task: str) -> None:
    page.select("task", task)
    page.click("#examples button")
    assert page.run("[...document.querySelectorAll('#images img')].every((image) => image.naturalWidth > 0)")
    _ask(page)
    assert page.text(".answer")
    products = page.run("images.length")
    assert len(page.texts(".view")) == products >= 1
    assert len(page.texts(".caption")) == products
    assert len(page.texts(".votes li")) >= 2 * products
    assert "total" in page.text(".timings")


def test_an_image_from_disk_is_uploaded(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "product.png"
    file.write_bytes(png())
    page.select("task", "sentiment_analysis")
    page.click("#examples button")
    page.click("#images button")
    page.chrome.find_element(By.ID, "files").send_keys(str(file))
    _until(page, "document.querySelectorAll('#images img').length === 1")
    _ask(page)
    assert page.texts(".caption")


def test_a_problem_is_shown_as_text(page: Page) -> None:
    page.select("task", "sentiment_analysis")
    page.run("document.querySelector('#fields textarea').value = '<img src=x onerror=alert(1)>', true")
    page.run("document.getElementById('options').value = 'A\\nB\\nB', true")
    page.run("setImages([{url: '', data: 'data:text/html;base64,PGI+'}]), true")
    _ask(page)
    assert page.text("#result h2") == "This content type is not supported"
    assert "images.0" in page.text(".problem")
    assert page.run("document.querySelectorAll('#result img').length") == 0


def test_nothing_of_a_user_runs_on_the_page(page: Page) -> None:
    page.select("task", "sentiment_analysis")
    page.click("#examples button")
    options = ["A: red <script>window.ran = 1</script>", "B: blue <img src=x onerror='window.ran = 1'>"]
    page.run(f"document.getElementById('options').value = {json.dumps(chr(10).join(options))}, true")
    complaints(page.chrome)
    _ask(page)
    assert page.texts("#result td")[0] == options[0]
    assert page.run("window.ran === undefined")


def test_nothing_comes_from_another_host(page: Page, server: Server) -> None:
    requests(page.chrome), complaints(page.chrome)
    page.chrome.get(f"{server.url}/")
    _until(page, "document.querySelectorAll('#examples button').length > 0")
    page.chrome.get(f"{server.url}/docs")
    _until(page, "document.querySelectorAll('#routes section').length > 5")
    sent = [url for url in requests(page.chrome) if not url.startswith("blob:")]
    assert sent
    assert all(url.startswith(f"{server.url}/") for url in sent)
    assert [text for text in complaints(page.chrome) if "favicon" not in text] == []


def test_the_page_fits_a_phone(page: Page) -> None:
    screen(page.chrome, *PHONE, phone=True)
    try:
        page.select("task", "sequential_recommendation")
        page.click("#examples button")
        _ask(page)
        assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.run("document.getElementById('ask').offsetHeight >= 40")
    finally:
        screen(page.chrome, 1280, 1600)
