"""Who answers: the base, alone or with one of the adapters that a run holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.profiles import Profile
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run
from caslie_ray.training import base_of, finished, planned

__all__ = ["Answerer", "answerers_of"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answerer:
    """One model that answers.

    Attributes:
        model: the base's name in the lineup.
        variant: what it is called in tables: `caslie`, or the name of an experiment.
        table: where its instructions are.
        reads: the variant of these.
        tasks: full names of its tasks; empty for all.
        adapter: the adapter's name in the engine; None for the base as it is.
        fingerprint: of all that decides what it answers.
    """

    model: str
    variant: str
    table: str
    reads: str
    tasks: tuple[str, ...]
    adapter: str | None
    fingerprint: str

    def answers(self, task: str) -> bool:
        """Whether it answers the questions of a task."""
        return not self.tasks or task in self.tasks

    def key(self, prompt: str) -> str:
        """Return the key of its answer to a prompt."""
        return content_id(self.fingerprint, prompt)


def answerers_of(run: Run, profile: Profile, *, partly: bool = False) -> tuple[Role, list[Answerer]]:
    """Return the base with the adapters of a run, and who answers with it.

    Args:
        run: holds trained models.
        profile: names them.
        partly: leave out models that are not trained yet, with a warning; nothing is asked, so no engine is chosen.

    Raises:
        RunError: a model is not trained yet.
        EngineError: the base cannot be found, or the engine that it names cannot apply the adapters.
    """
    base = base_of(profile, asked=not partly)
    found: list[Answerer] = []
    adapters: dict[str, str] = {}
    models = planned(run, profile)
    if profile.prediction.base:
        reads = (*profile.training.variants, "caslie")[0]
        found.append(Answerer(base.name, "base", "instructions", reads, (), None, base.fingerprint))
    for order, model in ((one.order, finished(run, one)) for one in models):
        if model is None and partly:
            log.warning("%s is left out: it is not trained on the instructions that the run holds", order.name)
            continue
        if model is None:
            raise RunError(f"{run.label} holds no trained model {order.name}: run train first, with the same profile")
        adapters[order.name] = model.adapter
        found.append(
            Answerer(
                base.name, order.experiment, order.table, order.variant, order.tasks, order.name,
                content_id(base.fingerprint, model.digest),
            )
        )  # fmt: skip
    return _with_adapters(base, adapters), found


def _with_adapters(base: Role, adapters: dict[str, str]) -> Role:
    return replace(base, spec=replace(base.spec, adapters=adapters))
