"""uniM³: a language model is fine-tuned on the instructions (LoRA, paper 4.3 and Appendix D)."""

from caslie_ray.training._job import TrainedModel, plan_training, train, trained
from caslie_ray.training._learner import TrainingError
from caslie_ray.training._order import TASK_SPECIFIC, TrainingOrder, orders_of

__all__ = [
    "TASK_SPECIFIC", "TrainedModel", "TrainingError", "TrainingOrder", "orders_of", "plan_training", "train", "trained",
]  # fmt: skip
