"""The results on the report page: tables, curves, confusion matrices, and samples on which variants differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from caslie_ray.evaluation.report.page import render_page
from caslie_ray.evaluation.report.plots import Curves, Grid, Matrix
from caslie_ray.evaluation.report.shown import ShownAnswer, ShownSample
from caslie_ray.evaluation.report.thumbnails import make_thumbnails
from tests.evaluation.browser import PHONE, Page, chromium, complaints, screen
from tests.evaluation.shown import HOSTILE, many, photo

VIEWS = many(8)
THUMBNAILS = make_thumbnails({one.image_id: photo(number, 64) for number, one in enumerate(VIEWS)})
PLOTS = (
    Grid("Table 6", "A note.", ("", "variant", "AP"), (("paper", "text", "0.5"), ("ours", HOSTILE, "0.6")), (1,)),
    Curves("Loss", "By step.", "nats", (("text", ((0.0, 2.0), (50.0, 1.25))), ("CASLIE", ((0.0, 2.0), (50.0, 0.5))))),
    Matrix("AP: true and answered", "", ("yes", "no"), ((0.75, 0.25, 0.0), (0.0, 0.5, 0.5)), ("yes", "no", "failed")),
)  # fmt: skip


def sample(number: int, task: str, **right: bool) -> ShownSample:
    answers = tuple(ShownAnswer(name, f"{name} said so", "yes" if mark else None, mark) for name, mark in right.items())
    return ShownSample(
        f"s{number}", task, "ind", f"question: {number}\n{HOSTILE}", "yes", answers, (VIEWS[number].view_id,)
    )


SAMPLES = [
    *(sample(number, "AP", text=False, uia=True, caslie=True) for number in range(3)),
    sample(3, "CC", text=False, uia=False, caslie=True),
    sample(4, "CC", text=True, uia=False, caslie=False),
]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def page(chrome: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    screen(chrome, 1280, 1000)
    complaints(chrome)
    yield Page(chrome, tmp_path).open(render_page("Results", [], PLOTS, VIEWS, THUMBNAILS, samples=SAMPLES))
    assert complaints(chrome) == []
    assert chrome.execute_script("return window.harm") is None


def texts(page: Page, where: str) -> list[str]:
    return [one.text for one in page.chrome.find_elements(By.CSS_SELECTOR, where)]


def test_a_table_shows_its_cells_and_highlights_ours(page: Page) -> None:
    assert texts(page, ".grid thead th") == ["", "variant", "AP"]
    assert texts(page, ".grid tbody tr:first-child > *") == ["paper", "text", "0.5"]
    assert HOSTILE.split("<!--")[0][:20] in texts(page, ".grid tr.strong td")[0]


def test_curves_have_a_line_and_a_last_value_each(page: Page) -> None:
    assert texts(page, ".legend li") == ["text 1.250", "CASLIE 0.500"]
    paths = [one.get_attribute("d") for one in page.chrome.find_elements(By.CSS_SELECTOR, "path.curve")]
    first, last = (path.split("L")[-1].split() for path in paths if path)
    # The lower loss is drawn lower, at the same step.
    assert first[0] == last[0]
    assert float(last[1]) > float(first[1])


def test_confusion_names_its_columns(page: Page) -> None:
    assert texts(page, ".heat thead th") == ["yes", "no", "failed"]
    assert texts(page, ".heat tbody tr:last-child td") == ["0.0", "50.0", "50.0"]


def test_samples_on_which_variants_differ_are_chosen_by_variant_and_task(page: Page) -> None:
    # At first those that caslie gets right and the first other variant wrong.
    assert len(texts(page, ".sample")) == 4
    page.select("sample-task", "CC")
    (card,) = page.chrome.find_elements(By.CSS_SELECTOR, ".sample")
    assert "question: 3" in card.text
    assert [one.get_attribute("class") for one in card.find_elements(By.CSS_SELECTOR, ".answer")] == [
        "answer wrong", "answer wrong", "answer right",
    ]  # fmt: skip
    assert "cannot be parsed: text said so" in card.text
    assert "A red mug, number 3." in card.text
    page.select("sample-right", "text")
    page.select("sample-wrong", "caslie")
    assert "question: 4" in page.text(".sample")
    page.select("sample-wrong", "text")
    assert page.text("#sample-count") == "0 of the samples here"


def test_a_page_without_answers_has_no_such_section(chrome: webdriver.Chrome, tmp_path: Path) -> None:
    without = Page(chrome, tmp_path).open(render_page("Captions", [], (), VIEWS, THUMBNAILS))
    assert not without.visible("#samples")


def test_nothing_is_wider_than_a_phone(page: Page, chrome: webdriver.Chrome) -> None:
    screen(chrome, *PHONE)
    assert chrome.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
