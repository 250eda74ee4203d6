"""The job `serve`: deploys the application on this cluster, and runs until it is stopped."""

from __future__ import annotations

import logging
import threading

from ray import serve

from caslie_ray.cli import COMPLETE, Arguments
from caslie_ray.cluster.connection import connect
from caslie_ray.pipeline.pools import check_models
from caslie_ray.roles import engine_lines, needed_names
from caslie_ray.serving._plan import ServingPlan
from caslie_ray.serving.application import APPLICATION, application, plan_pinned

__all__ = ["serve_job"]

log = logging.getLogger(__name__)


def serve_job(arguments: Arguments) -> int:
    """Serve the models until the process is stopped.

    Raises:
        ProfileError: a token is required and there is none.
        RunError: a model of the profile is not trained yet.
        EngineError: a checkpoint cannot be found or loaded.
    """
    profile, run = arguments.profile, arguments.run if arguments.kept else None
    settings = profile.serving
    plan = plan_pinned(profile, run)
    if arguments.plan:
        print("\n".join(["", "serve", *(f"  {line}" for line in _plan_lines(plan))]))
        return COMPLETE
    check_models([*plan.lineup.roles, plan.base], {*needed_names(plan.lineup, profile.faults), plan.base.name})
    app = application(plan, loopback=settings.loopback)
    connection = connect()
    serve.start(http_options={"host": settings.host, "port": settings.port, "request_timeout_s": None})
    log.info("loading %s", ", ".join(model.name for model in plan.models))
    try:
        serve.run(app, name=APPLICATION, route_prefix="/")
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        print(f"serving {', '.join(plan.answerers)} at http://{shown}:{settings.port}/", flush=True)
        threading.Event().wait()
    finally:
        if connection.joined:  # otherwise Ray ends with this process
            serve.delete(APPLICATION)
    return COMPLETE


def _plan_lines(plan: ServingPlan) -> list[str]:
    settings = plan.profile.serving
    needs = [f"{model.resources.cpus:g} CPUs, {model.resources.gpus:g} GPUs" for model in plan.models]
    return [
        f"address        http://{settings.host}:{settings.port}/",
        f"token          {settings.token_variable}{', if it is set' if settings.loopback or settings.open else ''}",
        f"answers as     {', '.join(plan.answerers)}",
        *(f"engine         {line}" for line in engine_lines([*plan.lineup.roles, plan.base])),
        *(
            f"replicas       {model.name} {model.pool.min}-{model.pool.max or 'any'} of {need}"
            for model, need in zip(plan.models, needs, strict=True)
        ),
    ]
