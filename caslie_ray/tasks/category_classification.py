"""CC: which fine-grained category does the product belong to? (paper B.2, A.5)"""

from __future__ import annotations

from caslie_ray.tasks._sample import Sample
from caslie_ray.tasks._task import InputField, Task
from caslie_ray.tasks.metrics import recall_at_1


class CategoryClassification(Task):
    """The options of a sample are its own; its caption prompt does not show them, its quality prompt does."""

    def slots(self, sample: Sample) -> list[dict[str, str]]:
        return [{"title": sample.field("title"), "options": ", ".join(sample.options)}]


TASK = CategoryClassification(
    name="category_classification",
    code="CC",
    instruction=(
        "Analyze the product title, as well as the potential extra information about the products extracted"
        " from the product images, identify the product category from the given options. Only answer from the"
        " options."
    ),
    caption_template=(
        "Please generate an informative caption for the product in the image. Here is the product title:"
        " {{title}}. The caption should be helpful in identifying the product’s fine-grained category."
    ),
    quality_template=(
        "The task needs to identify the product’s fine-grained category from the options: {{options}}. Here"
        " is the additional information about the product that was extracted from the product image:"
        " {{caption}}. You need to determine if the information extracted from the image will help to"
        " identify the category. Only output yes or no."
    ),
    inputs=(InputField("title", ("product title",)),),
    metrics=recall_at_1(),
)
