"""PSI: can the product serve as a functional substitute for the query? (paper B.4, A.5)"""

from caslie_ray.tasks._task import InputField, Task
from caslie_ray.tasks.metrics import binary

TASK = Task(
    name="product_substitute_identification",
    code="PSI",
    instruction=(
        "Given a user’s query and a product title, as well as the potential extra information about the"
        " product extracted from the product image, identify if the product is somewhat relevant to the query"
        " but fails to fulfill some aspects of the query but the product can be used as a functional"
        " substitute. Only output yes or no."
    ),
    caption_template=(
        "Please generate an informative caption for the product in the image. The caption should be helpful"
        " to predict if the product: {{product_title}} can serve as a functional substitute for the user’s"
        " query: {{query}}."
    ),
    quality_template=(
        "The model needs to identify if the product is somewhat relevant to the query but fails to fulfill"
        " some aspects of the query but the product can be used as a functional substitute. Given a user’s"
        " query: {{query}} and a product title: {{product_title}}, as well as additional information about"
        " the product extracted from the product image: {{caption}}, you need to determine if the information"
        " extracted from the image will be helpful in identifying the relevance between the product and the"
        " query. Only output yes or no."
    ),
    inputs=(InputField("query"), InputField("product title", ("title", "product"))),
    labels=("yes", "no"),
    cues={"yes": ("yes",), "no": ("no",)},
    shows_options=False,
    metrics=binary(),
)
