"""SA: which sentiment does the user's review express? (paper B.6, A.5)"""

from caslie_ray.tasks._task import InputField, Task
from caslie_ray.tasks.metrics import macro

_LABELS = ("very positive", "positive", "neutral", "negative", "very negative")

TASK = Task(
    name="sentiment_analysis",
    code="SA",
    instruction=(
        "Given the user’s review, as well as the potential extra information about the products extracted"
        " from the user review’s image, identify the user’s sentiment. Only answer from the options."
    ),
    caption_template=(
        "Please generate an informative caption for the product in the image. The caption should be helpful"
        " to identify the user’s sentiment from the review: {{review}}."
    ),
    quality_template=(
        "The task needs to identify the user’s sentiment based on their review: {{review}}. Here is the"
        " additional information about the product extracted from the user review’s image: {{caption}}. You"
        " need to determine if the information extracted from the image will help to identify the user’s"
        " sentiment. Only output yes or no."
    ),
    inputs=(InputField("review", ("review text", "text")),),
    labels=_LABELS,
    cues={label: (label,) for label in _LABELS},
    metrics=macro(),
)
