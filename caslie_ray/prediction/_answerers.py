"""The models that answer: the base, alone or with one of a run's trained adapters."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.profiles import Profile
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run
from caslie_ray.training import base_of, finished_model, planned_models

__all__ = ["Answerer", "answerers_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answerer:
    """One model that answers.

    Attributes:
        model: the base's name in the lineup.
        variant: its name in tables: `caslie`, or the name of an experiment.
        table: the table of its instructions.
        reads: the variant of its instructions.
        tasks: full names of its tasks; empty for all.
        adapter: the adapter's name in the engine; None for the bare base.
        fingerprint: hash of everything that its answers depend on, but for the prompt.
    """

    model: str
    variant: str
    table: str
    reads: str
    tasks: tuple[str, ...]
    adapter: str | None
    fingerprint: str

    def answers(self, task: str) -> bool:
        """Return whether it answers the questions of a task."""
        return not self.tasks or task in self.tasks

    def key(self, prompt: str) -> str:
        """Return the key of its answer to a prompt."""
        return content_id(self.fingerprint, prompt)


def answerers_of(run: Run, profile: Profile, *, partly: bool = False) -> tuple[Role, list[Answerer]]:
    """Return the base with the adapters of a run, and the models that answer.

    Args:
        run: contains the trained models.
        profile: names them.
        partly: leave out models that are not trained yet, with a warning, and choose no engine: nothing is asked.

    Raises:
        RunError: a model is not trained yet.
        EngineError: the base cannot be found, or the engine that it names cannot apply the adapters.
    """
    base = base_of(profile, asked=not partly)
    found: list[Answerer] = []
    adapters: dict[str, str] = {}
    models = planned_models(run, profile)
    if profile.prediction.base:
        reads = (*profile.training.variants, "caslie")[0]
        found.append(Answerer(base.name, "base", "instructions", reads, (), None, base.fingerprint))
    for spec, model in ((one.spec, finished_model(run, one)) for one in models):
        if model is None and partly:
            log.warning("%s is left out: it is not trained on the instructions that the run holds", spec.name)
            continue
        if model is None:
            raise RunError(f"{run.label} holds no trained model {spec.name}: run train first, with the same profile")
        adapters[spec.name] = model.adapter
        found.append(
            Answerer(
                base.name, spec.experiment, spec.table, spec.variant, spec.tasks, spec.name,
                content_id(base.fingerprint, model.digest),
            )
        )  # fmt: skip
    return _with_adapters(base, adapters), found


def _with_adapters(base: Role, adapters: dict[str, str]) -> Role:
    return replace(base, spec=replace(base.spec, adapters=adapters))
