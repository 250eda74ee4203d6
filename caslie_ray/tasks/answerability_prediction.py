"""AP: can the question be answered from its document and the product image? (paper B.1, A.5)"""

from caslie_ray.tasks._task import InputField, Task
from caslie_ray.tasks.metrics import binary

TASK = Task(
    name="answerability_prediction",
    code="AP",
    instruction=(
        "Analyze the question and its supporting document, as well as the potential extra information about"
        " the products extracted from the product images, predict if the question is answerable based on the"
        " provided information. Output only yes or no."
    ),
    caption_template=(
        "Please generate an informative caption for the product in the image. The caption should be helpful"
        " to identify if the product-related question: {{question}}, is answerable."
    ),
    quality_template=(
        "The task needs to identify if the question is answerable based on the related document:"
        " {{document}}. Here is the additional information about the product that was extracted from the"
        " product image: {{caption}}. You need to determine if the information extracted from the image will"
        " help to identify the question’s answerability. Only output yes or no."
    ),
    inputs=(
        InputField("question", ("query",)),
        InputField(
            "document",
            ("review", "reviews", "supporting document", "related document", "context", "documents"),
            required=False,
        ),
    ),
    labels=("yes", "no"),
    cues={"yes": ("yes",), "no": ("no",)},
    shows_options=False,
    metrics=binary(),
)
