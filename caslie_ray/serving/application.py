"""The Serve application: ``import_path: caslie_ray.serving.application:build`` in a Serve config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig

from caslie_ray.engines.process import ProcessLimits
from caslie_ray.pinning import pin_profile
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.roles import captioning_models
from caslie_ray.serving._gateway import Gateway
from caslie_ray.serving._model import ModelReplica
from caslie_ray.serving._plan import ModelPlan, ServingPlan, plan_serving
from caslie_ray.serving._security import token_of
from caslie_ray.storage.run import Run, open_run

__all__ = ["APPLICATION", "Arguments", "application", "build", "plan_pinned"]

APPLICATION = "caslie"
"""Name of the application in Serve."""

_RETRY_S = 1.0


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Arguments:
    """Arguments of the application in a Serve config.

    Attributes:
        profile: name or file of the profile.
        run: URI of the run whose adapters are served; None serves the bare base.
        settings: overrides of the profile, as ``key.path=value``.
        revision: any text; a change deploys the application again, for instance after another `train`.
    """

    profile: str = "mini"
    run: str | None = None
    settings: tuple[str, ...] = ()
    revision: str = ""


def build(arguments: Mapping[str, Any]) -> Application:
    """Return the application for a Serve config. Clients must send the token, unless `serving.open` is true.

    Args:
        arguments: of `Arguments`.

    Raises:
        ValueError: an argument is unknown, or the profile is not valid.
        RunError: the run has no trained models.
        EngineError: a checkpoint cannot be found.
    """
    given = TypeAdapter(Arguments).validate_python(dict(arguments))
    profile = load_profile(given.profile, given.settings)
    run = open_run(given.run) if given.run is not None else None
    return application(plan_pinned(profile, run), loopback=False)


def plan_pinned(profile: Profile, run: Run | None) -> ServingPlan:
    """Return what is served, with branches pinned to the commits that the run recorded; see `plan_serving`."""
    if run is not None:
        models = [*captioning_models(profile), profile.lineup.base]
        profile = pin_profile(run, profile, models, record=False)
    return plan_serving(profile, run)


def application(plan: ServingPlan, *, loopback: bool) -> Application:
    """Return the application.

    Args:
        plan: what is served.
        loopback: whether only this machine can connect.

    Raises:
        ProfileError: a token is required and there is none.
    """
    profile = plan.profile
    token = token_of(profile.serving, os.environ, loopback=loopback)
    settings = profile.serving
    handles = {model.name: _model(model, plan) for model in plan.models}
    gateway = serve.deployment(
        name="gateway",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=2 * settings.queue,
        max_queued_requests=settings.queue,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=_RETRY_S),
        graceful_shutdown_timeout_s=settings.drain_s,
        max_surge_percent=100,
        **_gateway_scaling(profile),
    )(Gateway)
    return gateway.bind(plan, token, loopback, handles)


def _model(model: ModelPlan, plan: ServingPlan) -> Application:
    settings, faults = plan.profile.serving, plan.profile.faults
    limits = ProcessLimits(
        tries=faults.tries, call_timeout_s=faults.call_timeout_s, failures_in_a_row=faults.replica_failures,
        start_timeout_s=faults.start_timeout_s, load_tries=faults.load_tries, load_pause_s=faults.load_pause_s,
    )  # fmt: skip
    deployment = serve.deployment(
        name=model.name,
        ray_actor_options=model.actor_options,
        max_ongoing_requests=model.batches * model.spec.batch_size,
        max_queued_requests=settings.queue,
        graceful_shutdown_timeout_s=settings.drain_s,
        max_surge_percent=100,
        **model.scaling,
    )(ModelReplica)
    return deployment.bind(
        model.name, model.spec, model.fingerprints, limits, model.batches, settings.batch_wait_s, model.needed
    )


def _gateway_scaling(profile: Profile) -> dict[str, Any]:
    pool = profile.serving.gateway
    if pool.max == pool.min:
        return {"num_replicas": pool.min}
    limits = {"min_replicas": pool.min, "max_replicas": pool.max or pool.min}
    return {"autoscaling_config": {**limits, "target_ongoing_requests": profile.serving.queue // 4 or 1}}
