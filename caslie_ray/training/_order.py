"""What one training is: its examples, its base, its settings, and the name that all of them give it."""

from __future__ import annotations

from dataclasses import dataclass

from caslie_ray.engines import EngineSpec, fingerprint
from caslie_ray.ids import content_id
from caslie_ray.profiles import Profile
from caslie_ray.profiles.training import TrainingSettings

__all__ = ["MODELS", "TrainingOrder", "orders_of"]

MODELS = "models"
"""The folder of a run that holds its models."""

# What changes memory, speed or the record of a training, and not the model that comes out.
_FREE = {
    "micro_batch", "micro_tokens", "packing", "checkpoint_steps", "max_failures", "trackers", "resources",
    "num_workers", "gradient_checkpointing", "variants", "task_specific",
}  # fmt: skip


@dataclass(frozen=True)
class TrainingOrder:
    """One model to train.

    Attributes:
        name: what it is called in tables: `caslie`, or `caslie-PSI` for one of a single task.
        variant: which captions its instructions hold.
        tasks: full names of its tasks; empty for all.
        spec: the base, as it is trained.
        base: fingerprint of the base.
        settings: the hyperparameters.
        table: where its instructions are.
    """

    name: str
    variant: str
    tasks: tuple[str, ...]
    spec: EngineSpec
    base: str
    settings: TrainingSettings
    table: str = "instructions"

    def key(self, digest: str) -> str:
        """Return a hash of all that the trained model depends on; `digest` is that of its examples."""
        settings = self.settings.model_dump(mode="json", exclude=_FREE)
        return content_id(self.base, digest, self.spec.dtype, repr(sorted(settings.items())))

    def folder(self, digest: str) -> str:
        """Return where the model lies in its run."""
        return f"{MODELS}/{self.name}-{self.key(digest)[:12]}"


def orders_of(profile: Profile) -> list[TrainingOrder]:
    """Return the models that a profile asks for.

    Raises:
        EngineError: the base cannot be found.
    """
    base = profile.lineup.base
    settings = profile.training
    spec = base.spec()
    return [TrainingOrder(variant, variant, (), spec, fingerprint(spec), settings) for variant in settings.variants]
