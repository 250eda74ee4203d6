"""The gateway: the deployment that answers HTTP."""

from __future__ import annotations

import os
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from caslie_ray.dataset.online import ImageReader
from caslie_ray.serving._http import build_app
from caslie_ray.serving._models import Models
from caslie_ray.serving._plan import ServingPlan
from caslie_ray.serving._service import Service

__all__ = ["Gateway"]


@serve.ingress()
class Gateway:
    """Reads requests, asks the models, and answers.

    Args:
        plan: what is served.
        token: bearer token of clients; None: none.
        local: whether only this machine can connect.
        handles: the models, by the names of their deployments.
    """

    def __init__(
        self, plan: ServingPlan, token: str | None, local: bool, handles: dict[str, DeploymentHandle[Any]]
    ) -> None:
        self._token = token
        self._local = local
        # The application opens the reader when it starts, and closes it at its end.
        self._service = Service(plan, Models(plan, handles), ImageReader(plan.profile.images, os.environ))

    def __serve_build_asgi_app__(self) -> Any:
        return build_app(self._service, self._token, local=self._local)
