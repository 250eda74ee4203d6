"""The report page in Chromium, opened from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from caslie_ray.evaluation.report.page import render_page
from caslie_ray.evaluation.report.plots import Bar, Figure, Matrix
from caslie_ray.evaluation.report.ranking import disagreement, mean_p_yes, worst_first
from caslie_ray.evaluation.report.shown import ShownView
from caslie_ray.evaluation.report.thumbnails import longest_side, make_thumbnails
from tests.evaluation.browser import PHONE, Page, chromium, complaints, requests, screen
from tests.evaluation.shown import HOSTILE, is_wrong, many, photo, truth, view

PAGE = 24
BARS = (Bar("one", 0.5, 0.4, 0.625, 1234, "voters"), Bar("all", 0.75, group="majority"))
FIGURES = (
    Figure("Accuracy", "By voter.", BARS, 0.9),
    Matrix("Disagreement", "By pair.", ("one", "two"), ((None, 0.125), (0.125, None))),
)


VIEWS = [*many(70), view("hostile", task=HOSTILE, context=HOSTILE, caption=HOSTILE, truth=truth(True))]
THUMBNAILS = make_thumbnails({one.image_id: photo(number % 5, 64) for number, one in enumerate(VIEWS[:-1])})


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def html() -> str:
    return render_page(
        "A <title> & more", [("Run", "s3://a/b"), ("Views", HOSTILE)], FIGURES, VIEWS, THUMBNAILS, left_out=1200
    )


@pytest.fixture
def page(chrome: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    screen(chrome, 1280, 1000)
    complaints(chrome)
    yield Page(chrome, tmp_path)
    assert complaints(chrome) == []


FILTERS: list[tuple[str, str, Callable[[ShownView], bool]]] = [
    ("task", "CC", lambda one: one.task == "CC"),
    ("task", HOSTILE, lambda one: one.task == HOSTILE),
    ("split", "ood", lambda one: "ood" in one.splits),
    ("split", "train", lambda one: "train" in one.splits),
    ("verdict", "used", lambda one: one.verdict),
    ("verdict", "unused", lambda one: not one.verdict and one.error is None),
    ("verdict", "error", lambda one: one.error is not None),
    ("votes", "unanimous", lambda one: len({vote.answer for vote in one.votes}) == 1),
    ("votes", "split", lambda one: len({vote.answer for vote in one.votes}) == 2),
    ("truth", "wrong", is_wrong),
    ("truth", "right", lambda one: not is_wrong(one)),
    ("usefulness", "misleading", lambda one: one.truth is not None and one.truth.usefulness == "misleading"),
    ("kind", "wrong", lambda one: one.truth is not None and one.truth.kind == "wrong"),
]


@pytest.mark.parametrize(
    ("name", "value", "wanted"), FILTERS, ids=[f"{name}-{value[:8]}" for name, value, _ in FILTERS]
)
def test_a_filter_shows_its_views_and_no_others(
    page: Page, html: str, name: str, value: str, wanted: Callable[[ShownView], bool]
) -> None:
    page.open(html).select(name, value)

    expected = [one.view_id for one in worst_first(VIEWS) if wanted(one)]
    assert 0 < len(expected) < len(VIEWS)
    assert page.text("#count") == f"{len(expected)} of {len(VIEWS)} views"
    assert page.all_shown == expected


def test_filters_narrow_one_another_and_reset_widens_them(page: Page, html: str) -> None:
    page.open(html)
    page.select("task", "AP")
    page.select("truth", "wrong")
    page.select("sort", "stored")
    page.search("red")
    expected = [one.view_id for one in VIEWS if one.task == "AP" and is_wrong(one) and "red" in (one.caption or "")]
    assert page.all_shown == expected

    page.click("#reset")

    assert page.text("#count") == f"{len(VIEWS)} of {len(VIEWS)} views"
    assert page.shown == [one.view_id for one in worst_first(VIEWS)][:PAGE]
    assert page.run("document.getElementById('search').value") == ""
    assert page.run("location.hash") in ("", "#")


@pytest.mark.parametrize("text", ["BLUE", "mug  red", "context of v0012", "v0012", "nothing like it"])
def test_search_needs_every_word_in_context_or_caption(page: Page, html: str, text: str) -> None:
    page.open(html).search(text)

    words = text.lower().split()
    expected = [
        one.view_id
        for one in worst_first(VIEWS)
        if all(word in f"{one.context}\n{one.caption or ''}".lower() for word in words)
    ]
    assert page.all_shown == expected
    assert page.visible("#empty") == (not expected)


def test_paging_turns_by_buttons_and_keys(page: Page, html: str) -> None:
    page.open(html)
    ids = [one.view_id for one in worst_first(VIEWS)]
    assert page.text("#page") == "page 1 of 3"
    assert not page.chrome.find_element(By.ID, "previous").is_enabled()

    page.click("#next")
    assert page.shown == ids[PAGE : 2 * PAGE]
    page.chrome.find_element(By.TAG_NAME, "body").send_keys(Keys.ARROW_RIGHT)
    assert page.shown == ids[2 * PAGE :]
    assert page.text("#page") == "page 3 of 3"
    page.click(".bottom [data-step='-1']")
    page.click("#previous")
    assert page.shown == ids[:PAGE]


def mean(one: ShownView) -> float | None:
    share = mean_p_yes(one.votes)
    return None if share is None else round(share, 4)


SORTS: dict[str, Callable[[ShownView], float]] = {
    "disagreement": lambda one: -disagreement(one.votes),
    "p-high": lambda one: 1 if mean(one) is None else -(mean(one) or 0),
    "p-low": lambda one: 2 if mean(one) is None else (mean(one) or 0),
    "stored": lambda one: 0,
}


@pytest.mark.parametrize("name", SORTS)
def test_sort_puts_the_views_in_order(page: Page, html: str, name: str) -> None:
    page.open(html).select("sort", name)

    assert page.all_shown == [one.view_id for one in sorted(VIEWS, key=SORTS[name])]


def test_a_link_restores_what_was_shown(page: Page, html: str) -> None:
    page.open(html)
    page.select("verdict", "unused")
    page.select("sort", "p-low")
    page.search("context")
    page.click("#next")
    seen, link = page.shown, str(page.run("location.hash"))

    page.open(html, link)

    assert seen == page.shown
    assert page.text("#page").startswith("page 2 of")
    assert page.run("document.getElementById('verdict').value") == "unused"
    page.run("location.hash = '#task=SR&task=nonsense&sort=nonsense&page=99'")
    expected = [one.view_id for one in worst_first(VIEWS) if one.task == "SR"]
    assert page.text("#count") == f"{len(expected)} of {len(VIEWS)} views"


def test_hostile_text_is_only_shown(page: Page, html: str) -> None:
    page.open(html, "#search=onerror")

    assert page.shown == ["hostile"]
    assert page.text(".card .caption") == HOSTILE
    assert page.text(".card .context") == HOSTILE
    assert page.text(".card .chip.task") == HOSTILE
    assert page.run("window.harm") is None
    assert page.run("document.querySelectorAll('img[onerror], b script').length") == 0
    assert HOSTILE not in html
    assert page.text("h1") == page.run("document.title") == "A <title> & more"


INJECTED = {
    "a script": "<script>window.harm = 1</script>",
    "a script of the page's own kind": '<script type="module">window.harm = 1</script>',
    "a script with the page's name": '<script src="page.html"></script>',
    "a handler": '<img src="data:," onerror="window.harm = 1">',
    "a style sheet": "<style>h1 { display: none }</style>",
    "a style attribute": '<p style="background: url(https://a.example/x)">text</p>',
}


@pytest.mark.parametrize("markup", INJECTED.values(), ids=INJECTED)
def test_what_is_injected_into_the_page_is_refused(
    chrome: webdriver.Chrome, tmp_path: Path, html: str, markup: str
) -> None:
    """Were a text to become markup after all: the policy allows the page's own script and style sheet alone."""
    complaints(chrome)
    page = Page(chrome, tmp_path).open(html.replace("<main>", f"{markup}<main>"))
    refused = complaints(chrome)
    assert refused
    assert all("Content Security Policy" in complaint for complaint in refused)
    assert page.run("window.harm") is None
    assert page.visible("h1")
    assert page.text("#count") == f"{len(VIEWS)} of {len(VIEWS)} views"


def test_long_texts_are_truncated_with_a_note(page: Page) -> None:
    long = view("one", context="x" * 5_000_000, caption="y" * 5_000_000, error="z" * 5_000_000)
    html = render_page("Title", [("Run", "r" * 5_000_000)], [], [long], {})
    assert len(html) < 100_000
    page.open(html)
    for where in (".card .context", ".card .caption", ".card .failure", "#facts dd"):
        assert page.text(where).endswith("… (5,000,000 characters)")


def test_figures_show_shares_as_text_and_as_lengths(page: Page, html: str) -> None:
    page.open(html)

    assert page.text("#figures .bar-row") == "one50.0%40.0–62.5n 1,234"
    assert page.texts("#figures .group") == ["voters", "majority"]
    track, fill, whisker, target = page.run(
        "['.track', '.fill', '.whisker', '.target'].map((part) => document.querySelector('.bar-row ' + part)"
        ".getBoundingClientRect()).map(({left, width}) => [left, width])"
    )
    assert fill[1] / track[1] == pytest.approx(0.5, abs=0.01)
    assert (whisker[0] - track[0]) / track[1] == pytest.approx(0.4, abs=0.01)
    assert whisker[1] / track[1] == pytest.approx(0.225, abs=0.01)
    assert (target[0] - track[0]) / track[1] == pytest.approx(0.9, abs=0.02)
    assert page.texts(".heat tbody td") == ["–", "12.5", "12.5", "–"]
    assert "1,200 are left out" in page.text("#left-out")


def test_a_card_shows_votes_truth_and_a_wrong_verdict(page: Page) -> None:
    one = view("one", (0.93, 0.2, None, 0.8), truth=truth(False, "misleading", "wrong"), context="many words " * 99)
    other = view("two", (0.1, 0.2), truth=truth(False, "useless", "blurred"))
    page.open(render_page("Title", [], [], [one, other], make_thumbnails({"image-one": photo(1)})))

    lines = page.texts("[data-view=one] .vote")
    assert lines == ["voter-0yes 93%", "voter-1no 20%", "voter-2failed: out of memory", "voter-3yes 80%"]
    assert "Wrong: used, though it does not help" in page.text("[data-view=one] .outcome")
    assert "wrong product, shows blue mug by Kivo" in page.text("[data-view=one] .truth")
    assert "colour (not in the text), brand" in page.text("[data-view=one] .truth")
    assert "Right" in page.text("[data-view=two] .outcome")
    assert "not asked: voter-2, voter-3" in page.text("[data-view=two]")
    assert page.run("document.querySelector('[data-view=one] img').naturalWidth") == 200
    assert page.visible("[data-view=two] .no-thumbnail")

    assert not page.visible("[data-view=two] .more")
    height = page.run("document.querySelector('[data-view=one] .context').clientHeight")
    page.click("[data-view=one] .more")
    assert page.run("document.querySelector('[data-view=one] .context').clientHeight") > height


def test_a_click_on_the_image_enlarges_the_view(page: Page, html: str) -> None:
    page.open(html, "#sort=stored&task=CC")
    ids = [one.view_id for one in VIEWS if one.task == "CC"]
    page.click(f"[data-view={ids[0]}] .thumb")
    assert f"view {ids[0]}" in page.text("#detail")

    page.click("#detail-next")
    assert f"view {ids[1]}" in page.text("#detail")
    assert f"context of {ids[1]}" in page.text("#detail")
    page.click("#detail-close")
    assert not page.visible("#detail")


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_a_phone(page: Page, html: str, dark: bool) -> None:
    screen(page.chrome, *PHONE, phone=True, dark=dark)
    page.open(html)
    assert page.run("document.documentElement.scrollWidth") <= PHONE[0]
    assert not page.visible("#task")

    page.click("#filters summary")
    page.select("votes", "split")
    page.click(".card .thumb")

    assert page.run("document.documentElement.scrollWidth") <= PHONE[0]
    assert page.run("document.getElementById('detail').getBoundingClientRect().width") <= PHONE[0]
    assert page.text("#active") == "(1 active)"


def test_the_page_makes_no_network_requests(page: Page, html: str) -> None:
    requests(page.chrome)
    page.open(html)
    page.click("#next")
    page.click(".card .thumb")

    assert {address.split(":")[0] for address in requests(page.chrome)} <= {"file", "about"}
    assert (
        page.run("performance.getEntriesByType('resource').filter(({name}) => !name.startsWith('data:')).length") == 0
    )


def test_without_truth_the_page_does_not_mention_it(page: Page) -> None:
    views = [replace(one, truth=None) for one in VIEWS[:30]]
    page.open(render_page("Title", [], [], views, {}))

    assert not any(page.visible(f"#{name}") for name in ("truth", "usefulness", "kind"))
    assert page.run("document.querySelectorAll('.truth').length") == 0
    assert page.shown == [one.view_id for one in worst_first(views)][:PAGE]


def test_a_run_without_views_has_a_note(page: Page) -> None:
    page.open(render_page("Title", [("Views", "0")], FIGURES, [], {}))

    assert page.text("#empty") == "There are no views to show."
    assert not page.visible("#search")
    assert page.run("document.querySelectorAll('#figures figure').length") == 2


def test_an_error_row_shows_its_error(page: Page) -> None:
    row = view("one", (), caption=None, error="the image is broken", truth=truth(False))
    page.open(render_page("Title", [], [], [row], make_thumbnails({"image-one": b"no image"})))

    assert page.text(".card .chip.verdict") == "error"
    assert page.text(".card .caption") == "no caption"
    assert page.text(".card .failure") == "the image is broken"
    assert page.visible(".card .no-thumbnail")


def test_the_size_of_five_thousand_views_is_bounded(page: Page) -> None:
    photos = [photo(seed) for seed in range(40)]
    context = "Please generate an informative caption for the product in the image. Here is the product title: {}. " * 3
    views = [
        replace(one, context=context.format(*[f"product {number}, red, 500 g"] * 3), caption=f"caption {number} " * 12)
        for number, one in enumerate(many(5000))
    ]
    html = render_page(
        "Title", [], [], views, make_thumbnails({one.image_id: photos[n % 40] for n, one in enumerate(views)})
    )
    assert len(html.encode()) < 15_000_000

    page.open(html)
    assert page.text("#count") == "5,000 of 5,000 views"
    assert len(page.shown) == PAGE
    page.select("task", "SR")
    page.search("4997")
    assert page.shown == ["v4997"]
    page.click("#reset")
    page.click("#next")
    assert len(page.shown) == PAGE
    assert page.run("document.querySelectorAll('img').length") <= PAGE
    assert page.run("document.querySelector('.card img').naturalWidth") == longest_side(5000)


def test_without_chromium_the_error_names_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"apt-get install .*chromium chromium-driver"), chromium(tmp_path):
        pass
