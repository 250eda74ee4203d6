from collections import Counter
from random import Random

import pytest

from caslie_ray.miniature._records import prompts_of, sample_of
from caslie_ray.miniature._reviews import FEELINGS
from caslie_ray.miniature._samples import MAKERS, DrawnSample, World
from caslie_ray.miniature.catalogue import CATEGORIES, COMPLEMENTS, VALUES, Domain
from caslie_ray.miniature.truth import caption_of, context_free_caption, helps, named_in
from caslie_ray.tasks import find_task

TASKS = tuple(MAKERS)


def _many(task: str, domain: Domain | None = "tools", count: int = 200) -> list[DrawnSample]:
    world = World(Random(f"{task}{domain}"), domain)
    return [MAKERS[task](world) for _ in range(count)]


@pytest.mark.parametrize("domain", ["tools", "sports"])
@pytest.mark.parametrize("task", TASKS)
def test_every_sample_reads_as_a_sample_of_its_task(task: str, domain: Domain) -> None:
    for drawn in _many(task, domain, 60):
        sample = sample_of(drawn)
        assert sample.task == find_task(task).name
        assert sample.output in sample.options
        assert len(sample.images) == len(drawn.views) == len(prompts_of(drawn))
        assert len(set(drawn.options)) == len(drawn.options)


@pytest.mark.parametrize("task", TASKS)
def test_a_true_caption_helps_exactly_where_the_picture_is_useful(task: str) -> None:
    views = [view for drawn in _many(task) for view in drawn.views]
    assert all(helps(caption_of(view), view) == (view.usefulness == "useful") for view in views)
    found = Counter(view.usefulness for view in views)
    assert min(found["useful"], found["useless"], found["misleading"]) > 0.1 * len(views)


@pytest.mark.parametrize("task", TASKS)
def test_what_the_text_lacks_is_nowhere_in_the_quality_prompt(task: str) -> None:
    for drawn in _many(task, count=100):
        for view, prompts in zip(drawn.views, prompts_of(drawn), strict=True):
            words = set(prompts.quality.text.replace(".", " ").replace(",", " ").split())
            product = view.picture.product
            if task == "CC":
                assert product.category in words
                assert product.category not in prompts.caption.text.split()
            elif task == "SA":
                assert product.category in words
            elif task not in ("PSI", "MPC", "PRP"):
                assert not words & {product.value(name) for name in view.lacks}


@pytest.mark.parametrize("task", TASKS)
def test_a_wrong_picture_contradicts_the_text(task: str) -> None:
    for drawn in _many(task):
        for view, prompts in zip(drawn.views, prompts_of(drawn), strict=True):
            shown = view.picture.shown
            if view.picture.kind == "wrong":
                assert shown is not None
                assert f"{shown.category}" not in prompts.quality.text.split()
                assert shown.colour != view.picture.product.colour


def test_a_question_is_answerable_from_the_document_or_the_brand_on_the_product() -> None:
    drawn_here = _many("AP")
    for drawn in drawn_here:
        view = drawn.views[0]
        product = view.picture.product
        assert (drawn.output == "yes") == (_told(drawn) or (bool(view.lacks) and bool(product.brand)))
    seen = Counter(drawn.output for drawn in drawn_here if drawn.views[0].usefulness == "useful")
    assert min(seen["yes"], seen["no"]) > 0.3 * seen.total()


def _told(drawn: DrawnSample) -> bool:
    assert isinstance(drawn.fields, dict)
    asked, document = drawn.views[0].asks[0], drawn.fields["document"]
    cues = {"weight": ("weigh",), "price": ("paid", "price"), "warranty": ("warranty",)}
    if asked in VALUES:
        value = drawn.views[0].picture.product.value(asked)
        return bool(value) and value in document
    return any(cue in document for cue in cues[asked])


def test_relations_follow_from_the_products() -> None:
    for drawn in _many("PRP"):
        first, second = (view.picture.product for view in drawn.views)
        complement = second.category == COMPLEMENTS[first.category]
        assert complement or first.category == second.category
        alike = first.colour == second.colour
        assert drawn.output == ("also view" if not alike else "also buy" if complement else "similar")


@pytest.mark.parametrize("task", ["PSI", "MPC"])
def test_relevance_follows_from_query_and_product(task: str) -> None:
    for drawn in _many(task):
        assert isinstance(drawn.fields, dict)
        wanted = named_in(drawn.fields["query"])
        product = drawn.views[0].picture.product
        (asked,) = drawn.views[0].asks
        assert set(wanted) == {"category", asked}
        assert wanted["category"] in (product.category, COMPLEMENTS[product.category])
        fits = wanted[asked] == product.value(asked)
        if wanted["category"] == product.category:
            relevance = "exact" if fits else "substitute"
        else:
            relevance = "complement" if fits else "irrelevant"
        assert drawn.output == (("yes" if relevance == "substitute" else "no") if task == "PSI" else relevance)


def test_reviews_are_longer_than_ten_words_and_the_photo_decides_open_ones() -> None:
    places = {"strong": (0, 4), "weak": (1, 3), "prepared": (1, 2)}
    seen = Counter[str]()
    for drawn in _many("SA"):
        assert isinstance(drawn.fields, dict)
        review = drawn.fields["review"]
        assert len(review.split()) > 10
        (feeling,) = (name for name, words in FEELINGS.items() if words in review)
        view = drawn.views[0]
        right = named_in(review)[view.asks[0]] == view.picture.product.value(view.asks[0])
        assert drawn.output == drawn.options[places[feeling][0 if right else 1]]
        assert ("See the photo" in review) == bool(view.lacks)
        seen[drawn.output] += view.usefulness == "useful"
    assert min(seen[label] for label in find_task("SA").labels) > 0


def test_only_the_next_product_shares_the_common_attribute_of_the_history() -> None:
    for drawn in _many("SR"):
        products = [view.picture.product for view in drawn.views]
        history, options = products[:2], products[2:]
        asked = drawn.views[0].asks[0]
        liked = {product.value(asked) for product in history}
        assert len(liked) == 1
        fitting = [drawn.options[i] for i, product in enumerate(options) if product.value(asked) in liked]
        assert fitting == [drawn.output]


def test_the_same_seed_makes_the_same_samples() -> None:
    for task in TASKS:
        assert _many(task, count=5) == _many(task, count=5)


def test_captions_name_what_is_asked_and_context_free_ones_name_less() -> None:
    free: list[float] = []
    for task in TASKS:
        views = [view for drawn in _many(task, count=60) for view in drawn.views]
        seen = [view for view in views if view.picture.kind == "informative" and view.lacks]
        lacks = [{name for name in view.lacks if view.picture.product.value(name)} for view in seen]
        assert all(names <= set(named_in(caption_of(view))) for names, view in zip(lacks, seen, strict=True))
        free.append(sum(set(view.lacks) <= set(named_in(context_free_caption(view))) for view in seen) / len(seen))
        unseen = [view for view in views if view.picture.shown is None]
        assert not any(set(named_in(caption_of(view))) & {"category", "colour"} for view in unseen)
    assert 0.4 < sum(free) / len(free) < 0.75


def test_named_in_reads_values_and_nothing_else() -> None:
    assert named_in("A red striped mug by Kivo, hammered") == {
        "colour": "red", "pattern": "striped", "category": "mug", "brand": "Kivo",
    }  # fmt: skip
    assert named_in("") == {}
    assert set(CATEGORIES) == {named_in(f"a {name}")["category"] for name in CATEGORIES}
