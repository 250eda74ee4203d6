"""What is served: the deployment of each model, and who answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from caslie_ray.engines import EngineSpec, overlap
from caslie_ray.prediction import Answerer, answerers_of
from caslie_ray.profiles import Model, Pool, Profile, Resources
from caslie_ray.roles import ResolvedLineup, Role, needed_names, resolve, role_of
from caslie_ray.storage.run import Run

__all__ = ["BASE", "ModelPlan", "ServingPlan", "plan_serving"]

BASE = "base"
"""Name under which the base answers without an adapter."""

_VARIANTS = ("caslie", "uia", "text")
# Serve needs a limit; replicas without room stay pending, which makes the cluster grow.
_MOST_REPLICAS = 64


@dataclass(frozen=True)
class ModelPlan:
    """The deployment of one checkpoint.

    Attributes:
        name: of the deployment: the first role's.
        spec: what a replica loads.
        fingerprints: of what answers, by the names of roles or adapters.
        resources: what a replica requests.
        pool: limits of the number of replicas.
        needed: whether no request is answered without it.
    """

    name: str
    spec: EngineSpec
    fingerprints: Mapping[str, str]
    resources: Resources
    pool: Pool
    needed: bool

    @property
    def batches(self) -> int:
        """Batches that a replica has at once: those that it computes, and one that it prepares."""
        return overlap(self.spec.engine) + 1

    @property
    def actor_options(self) -> dict[str, Any]:
        """Options of the replica's actor, by Ray's names."""
        need = self.resources
        options: dict[str, Any] = {"num_cpus": need.cpus, "num_gpus": need.gpus}
        if need.memory_gib:
            options["memory"] = int(need.memory_gib * 2**30)
        first, *others = need.labels or ({},)
        if first:
            options["label_selector"] = dict(first)
        if others:
            options["fallback_strategy"] = [{"label_selector": dict(other)} for other in others]
        return options

    @property
    def scaling(self) -> dict[str, Any]:
        """The number of replicas, by Serve's names: fixed, or by the requests in progress."""
        most = self.pool.max or _MOST_REPLICAS
        if most == self.pool.min:
            return {"num_replicas": most}
        limits = {"min_replicas": self.pool.min, "max_replicas": most}
        return {"autoscaling_config": {**limits, "target_ongoing_requests": self.spec.batch_size}}


@dataclass(frozen=True)
class ServingPlan:
    """What a gateway and its models are built from.

    Attributes:
        profile: the settings.
        lineup: captioner and voters.
        base: the base with its adapters.
        answerers: who answers tasks, by the names that requests use.
        models: the deployment of each checkpoint.
    """

    profile: Profile
    lineup: ResolvedLineup
    base: Role
    answerers: Mapping[str, Answerer]
    models: tuple[ModelPlan, ...]

    def deployment_of(self, role: Role) -> str:
        """Return the name of the deployment that plays a role."""
        return next(model.name for model in self.models if role.name in model.fingerprints)

    @property
    def default_model(self) -> str:
        """The answerer of requests that name none: the method itself if it is served."""
        return "caslie" if "caslie" in self.answerers else next(iter(self.answerers))


def plan_serving(profile: Profile, run: Run | None) -> ServingPlan:
    """Return what is served.

    Args:
        profile: the lineup and the settings.
        run: contains the adapters that `train` wrote; None serves the bare base.

    Raises:
        RunError: a model of the profile is not trained yet.
        EngineError: a checkpoint cannot be found.
        ProfileError: the lineup is refused.
    """
    # All models are loaded at the same time, as in the streamed schedule.
    lineup = resolve(profile.model_copy(update={"schedule": "streamed"}))
    model = profile.lineup.base
    base, found = (role_of(model), []) if run is None else answerers_of(run, profile)
    base = _beside_others(base, model)
    answerers = {one.variant: one for one in found if one.table == "instructions" and one.reads in _VARIANTS}
    answerers.setdefault(BASE, Answerer(base.name, BASE, "instructions", "caslie", (), None, base.fingerprint))
    needed = needed_names(lineup, profile.faults)
    plans: dict[str, ModelPlan] = {}
    for role in lineup.roles:
        before = plans.get(role.pool)
        prints = {**(before.fingerprints if before else {}), role.name: role.fingerprint}
        needs = role.name in needed or bool(before and before.needed)
        plans[role.pool] = ModelPlan(
            before.name if before else role.name, role.spec, prints, role.resources, role.replicas, needs
        )
    prints = {base.name: base.fingerprint, **{one.adapter: one.fingerprint for one in found if one.adapter}}
    unim3 = ModelPlan(base.name, base.spec, prints, base.resources, base.replicas, True)
    return ServingPlan(profile, lineup, base, answerers, (*plans.values(), unim3))


def _beside_others(base: Role, model: Model) -> Role:
    """Return the base with the resources and batches for a cluster that it shares with the other models."""
    spec = replace(
        base.spec, batch_size=model.batch_size, batch_tokens=model.batch_tokens, gpus=model.resources.gpus,
        device=model.device,
    )  # fmt: skip
    return replace(base, spec=spec, resources=model.resources)
