"""What one training is: its examples, its base, its settings, and the name that all of them give it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from caslie_ray.engines import EngineSpec, LoraShape, fingerprint
from caslie_ray.engines.revisions import pinned
from caslie_ray.fusion import EXPERIMENTS, experiments_of
from caslie_ray.hashing import content_id
from caslie_ray.profiles import Profile
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.roles import Role, role_of
from caslie_ray.tasks import TASKS

__all__ = ["MODELS", "TASK_SPECIFIC", "TrainingOrder", "base_of", "orders_of"]

MODELS = "models"
"""The folder of a run that holds its models."""

TASK_SPECIFIC = "task-specific"
"""What models of one task each are called in tables."""

# What changes memory, speed or the record of a training, and not the model that comes out.
_FREE = {
    "micro_batch", "micro_tokens", "packing", "checkpoint_steps", "max_failures", "max_preemptions", "trackers",
    "resources", "num_workers", "gradient_checkpointing", "variants", "merge",
    "keep", "dtype",
}  # fmt: skip


@dataclass(frozen=True)
class TrainingOrder:
    """One model to train.

    Attributes:
        name: what tells it from the others: `caslie`, or `task-specific-PSI`.
        experiment: what it is called in tables; models of one task each share a name.
        variant: which captions its instructions hold.
        tasks: full names of its tasks; empty for all.
        spec: the base, as it is trained.
        base: fingerprint of the base.
        settings: the hyperparameters.
        table: where its instructions are.
    """

    name: str
    experiment: str
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
    settings, tried = profile.training, profile.experiments
    spec = pinned(profile.lineup.base.spec())
    if settings.dtype is not None:
        spec = replace(spec, dtype=settings.dtype)
    base = fingerprint(spec)

    def order(
        name: str, variant: str, experiment: str = "", table: str = "instructions", task: str = ""
    ) -> TrainingOrder:
        tasks = (task,) if task else ()
        return TrainingOrder(name, experiment or name, variant, tasks, spec, base, settings, table)

    orders = [order(variant, variant) for variant in settings.variants]
    if tried.task_specific:
        # Of the same captions as the generalist that they stand beside.
        first = settings.variants[0] if settings.variants and "caslie" not in settings.variants else "caslie"
        orders += [
            order(f"{TASK_SPECIFIC}-{task.code}", first, TASK_SPECIFIC, task=task.name) for task in TASKS.values()
        ]
    return orders + [order(name, name, table=EXPERIMENTS) for name in experiments_of(profile)]


def base_of(profile: Profile, *, asked: bool = True) -> Role:
    """Return the base on the engine that will answer with it, which must apply the adapters that are trained.

    All adapters of a profile share one shape, so the engine is known before any is trained.

    Args:
        profile: names the base.
        asked: False where its answers are only looked up: no engine is chosen.

    Raises:
        EngineError: the base cannot be found, or the engine that it names cannot apply the adapters.
    """
    lora = profile.training.lora
    shape = LoraShape(lora.targets, lora.rank) if orders_of(profile) else None
    return role_of(profile.lineup.base.by_itself(), shape, asked=asked)
