"""MPC: how relevant is the product to the query? (paper B.5, A.5)"""

from caslie_ray.tasks._task import InputField, Task
from caslie_ray.tasks.metrics import macro

TASK = Task(
    name="multiclass_product_classification",
    code="MPC",
    instruction=(
        "Predict the relevance between the query and product by analyzing the user’s query, and product"
        " title, as well as the potential extra information about the product extracted from the product"
        " image. Output the option that best describes the relevance."
    ),
    caption_template=(
        "Please generate an informative caption for the product in the image. The caption should be helpful"
        " to predict the relevance between the user’s query: {{query}}, and product: {{product_title}}."
    ),
    quality_template=(
        "The model needs to predict the relevance between the query and product by analyzing the user’s"
        " query: {{query}}, and product title: {{product_title}}. Here is the additional information about"
        " the product extracted from the product image: {{caption}}, you need to determine if the information"
        " extracted from the image will be helpful in predicting the result. Only output yes or no."
    ),
    inputs=(InputField("query"), InputField("product title", ("title", "product"))),
    labels=("exact", "substitute", "complement", "irrelevant"),
    cues={
        "exact": ("exact", "satisfies all"),
        "substitute": ("substitute",),
        "complement": ("complement", "in combination"),
        "irrelevant": ("irrelevant", "not relevant"),
    },
    metrics=macro(primary="accuracy"),
)
