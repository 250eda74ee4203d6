"""What is trained: a model's instructions, base and settings, and the hash that identifies the result."""

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

__all__ = ["MODELS", "TASK_SPECIFIC", "TrainingSpec", "base_of", "training_specs"]

MODELS = "models"
"""The folder of a run that holds its models."""

TASK_SPECIFIC = "task-specific"
"""The name in tables of the models that are trained on one task each."""

# Settings that change memory, speed or records, but not the trained model.
_WITHOUT_EFFECT = {
    "micro_batch", "micro_tokens", "packing", "checkpoint_steps", "max_failures", "max_preemptions", "trackers",
    "resources", "num_workers", "gradient_checkpointing", "variants", "merge",
    "keep", "dtype",
}  # fmt: skip


@dataclass(frozen=True)
class TrainingSpec:
    """One model to train.

    Attributes:
        name: unique among the models of a profile: `caslie`, or `task-specific-PSI`.
        experiment: its name in tables; the task-specific models share one.
        variant: the variant of its instructions.
        tasks: full names of its tasks; empty for all.
        base_spec: the base, as it is trained.
        base: fingerprint of the base.
        settings: the hyperparameters.
        table: the table of its instructions.
    """

    name: str
    experiment: str
    variant: str
    tasks: tuple[str, ...]
    base_spec: EngineSpec
    base: str
    settings: TrainingSettings
    table: str = "instructions"

    def key(self, digest: str) -> str:
        """Return a hash of everything that the trained model depends on; `digest` is that of its examples."""
        settings = self.settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
        return content_id(self.base, digest, self.base_spec.dtype, repr(sorted(settings.items())))

    def folder(self, digest: str) -> str:
        """Return the model's folder in its run."""
        return f"{MODELS}/{self.name}-{self.key(digest)[:12]}"


def training_specs(profile: Profile) -> list[TrainingSpec]:
    """Return the models that a profile trains.

    Raises:
        EngineError: the base cannot be found.
    """
    settings, experiments = profile.training, profile.experiments
    base_spec = pinned(profile.lineup.base.spec())
    if settings.dtype is not None:
        base_spec = replace(base_spec, dtype=settings.dtype)
    base = fingerprint(base_spec)

    def spec(
        name: str, variant: str, experiment: str = "", table: str = "instructions", task: str = ""
    ) -> TrainingSpec:
        tasks = (task,) if task else ()
        return TrainingSpec(name, experiment or name, variant, tasks, base_spec, base, settings, table)

    specs = [spec(variant, variant) for variant in settings.variants]
    if experiments.task_specific:
        # They learn from the same captions as the generalist that they are compared with.
        first = settings.variants[0] if settings.variants and "caslie" not in settings.variants else "caslie"
        specs += [spec(f"{TASK_SPECIFIC}-{task.code}", first, TASK_SPECIFIC, task=task.name) for task in TASKS.values()]
    return specs + [spec(name, name, table=EXPERIMENTS) for name in experiments_of(profile)]


def base_of(profile: Profile, *, asked: bool = True) -> Role:
    """Return the base, on the engine that will answer with it and its adapters.

    All adapters of a profile have one shape, so the engine is known before any is trained.

    Args:
        profile: names the base.
        asked: False if its answers are only looked up: no engine is chosen.

    Raises:
        EngineError: the base cannot be found, or the engine that it names cannot apply the adapters.
    """
    lora = profile.training.lora
    shape = LoraShape(lora.targets, lora.rank) if training_specs(profile) else None
    return role_of(profile.lineup.base.by_itself(), shape, asked=asked)
