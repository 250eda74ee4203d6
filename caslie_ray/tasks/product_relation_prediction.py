"""PRP: are two products similar, bought together or viewed together? (paper B.3, A.5)"""

from __future__ import annotations

from collections.abc import Sequence

from caslie_ray.prompts import Prompt, render
from caslie_ray.tasks._sample import Sample
from caslie_ray.tasks._task import InputField, Task, caption_line
from caslie_ray.tasks.metrics import macro


class ProductRelationPrediction(Task):
    """Two views per sample; for the second one the two products are swapped, in both prompts."""

    def image_count(self, pairs: Sequence[tuple[str, str]], options: Sequence[str]) -> int:
        return 2

    def slots(self, sample: Sample) -> list[dict[str, str]]:
        first, second = sample.field("product 1"), sample.field("product 2")
        return [{"title": first, "other_title": second}, {"title": second, "other_title": first}]

    def body(self, sample: Sample, captions: Sequence[str | None]) -> list[Prompt]:
        lines: list[Prompt] = []
        for (name, text), caption in zip(sample.input, captions, strict=True):
            lines.append(render(f"{name}: {{{{text}}}}", text=text))
            lines += caption_line(f"information from the image of {name}", caption)
        return lines


TASK = ProductRelationPrediction(
    name="product_relation_prediction",
    code="PRP",
    instruction=(
        "Given the title of two products, as well as the potential extra information about the products"
        " extracted from the product images, predict the relation of the two products. Only answer from the"
        " options."
    ),
    caption_template=(
        "Please generate an informative caption for the product in the image. The title of the product in the"
        " image is {{title}}. The caption should be helpful in predicting the relation between this product"
        " and {{other_title}}."
    ),
    quality_template=(
        "The model needs to identify if the two products are similar or will be purchased together or be"
        " viewed together given the title of product 1: {{title}}, and product 2: {{other_title}}. Here is"
        " the additional information about product 1 extracted from its image: {{caption}}, you need to"
        " determine if the information extracted from the image will be helpful in identifying the relation"
        " between the two products. Only output yes or no."
    ),
    inputs=(
        InputField("product 1", ("product1", "product 1 title", "title 1")),
        InputField("product 2", ("product2", "product 2 title", "title 2")),
    ),
    labels=("also buy", "also view", "similar"),
    cues={
        "also buy": ("also buy", "also_buy", "also bought", "purchased together"),
        "also view": ("also view", "also_view", "also viewed", "viewed together"),
        "similar": ("similar",),
    },
    metrics=macro(),
)
