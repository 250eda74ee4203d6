"""uniM³: a language model is fine-tuned on the instructions (LoRA, paper 4.3 and Appendix D)."""

from caslie_ray.training._job import plan_training, train
from caslie_ray.training._learner import TrainingError
from caslie_ray.training._models import TrainedModel, finished, planned, trained
from caslie_ray.training._order import TASK_SPECIFIC, TrainingOrder, base_of, orders_of

__all__ = [
    "TASK_SPECIFIC", "TrainedModel", "TrainingError", "TrainingOrder", "base_of", "finished", "orders_of",
    "plan_training", "planned", "train", "trained",
]  # fmt: skip
