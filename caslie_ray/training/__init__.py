"""uniM³: LoRA fine-tuning of a language model on the instructions (paper 4.3 and Appendix D)."""

from typing import TYPE_CHECKING, Any

from caslie_ray.training._errors import TrainingError
from caslie_ray.training._registry import PlannedModel, TrainedModel, finished_model, planned_models, trained_model
from caslie_ray.training._spec import TASK_SPECIFIC, TrainingSpec, base_of, training_specs

if TYPE_CHECKING:
    from caslie_ray.training._job import plan_training, train

__all__ = [
    "TASK_SPECIFIC", "PlannedModel", "TrainedModel", "TrainingError", "TrainingSpec", "base_of", "finished_model",
    "plan_training", "planned_models", "train", "trained_model", "training_specs",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # `_job` imports torch. Actors that only look up trained models start seconds earlier without it.
    if name in {"plan_training", "train"}:
        from caslie_ray.training import _job

        return getattr(_job, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
