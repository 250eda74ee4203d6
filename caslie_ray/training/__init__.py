"""uniM³: a language model is fine-tuned on the instructions (LoRA, paper 4.3 and Appendix D)."""

from caslie_ray.training._job import plan_training, train
from caslie_ray.training._learner import TrainingError

__all__ = ["TrainingError", "plan_training", "train"]
