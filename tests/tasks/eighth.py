"""An eighth task: all that it takes. Its test puts a copy of this file beside the seven."""

from caslie_ray.tasks._metrics import binary
from caslie_ray.tasks._task import InputField, Task

TASK = Task(
    name="gift_suitability",
    code="GS",
    instruction="Tell whether the product suits the occasion. Only output yes or no.",
    caption_template="Describe the product in the image as a gift for {{occasion}}.",
    quality_template=(
        "The gift is for {{occasion}}. The image shows: {{caption}}. Does that help? Only output yes or no."
    ),
    inputs=(InputField("occasion", ("event",)), InputField("product title", ("title",))),
    labels=("yes", "no"),
    cues={"yes": ("yes",), "no": ("no",)},
    shows_options=False,
    metrics=binary(),
)
