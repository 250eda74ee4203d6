"""An adapter that is replaced under load: no request is dropped, and each answer is that of the adapter it names."""

from __future__ import annotations

import json
import shutil
import threading
from typing import Any

import httpx
import pytest
from ray import serve

from caslie_ray.profiles import load_profile
from caslie_ray.serving.application import APPLICATION, application, plan_pinned
from caslie_ray.storage.run import Run, open_run
from tests.clusters import until
from tests.serving.conftest import LINEUP
from tests.serving.load import run_load
from tests.serving.test_bad_requests import GOOD

pytestmark = pytest.mark.timeout(600)

BARE = [*LINEUP, "votes.rule=never", "lineup.base.resources.cpus=0.1", "training.variants=[text]"]


PROFILE = load_profile("mini", BARE)


@pytest.fixture(scope="module")
def other(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run with another adapter under the same name: that of the variant `caslie` in place of that of `text`."""
    folder = tmp_path_factory.mktemp("other") / "run"
    shutil.copytree(trained.root, folder)
    (text,) = folder.glob("models/text-*")
    (caslie,) = folder.glob("models/caslie-*")
    records = {place: json.loads((place / "training.json").read_text()) for place in (text, caslie)}
    for name in records[caslie]["adapters"]:
        shutil.rmtree(text / name)
        shutil.copytree(caslie / name, text / name)
    record = {**records[text], "adapters": records[caslie]["adapters"]}
    (text / "training.json").write_text(json.dumps(record))
    return open_run(str(folder))


def test_no_request_is_dropped(trained: Run, other: Run, url: str) -> None:
    def deploy(run: Run) -> None:
        serve.run(application(plan_pinned(PROFILE, run), loopback=True), name=APPLICATION, route_prefix="/")

    deploy(trained)
    until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 120, "the first adapter")
    swapped = threading.Event()

    def swap() -> None:
        deploy(other)
        swapped.set()

    swapping = threading.Thread(target=swap)

    def question(number: int) -> dict[str, Any]:
        if number == 40:
            swapping.start()
        return {**GOOD, "images": [], "fields": {"review": f"It is {number}."}, "probabilities": False}

    load = run_load(url, question, clients=4, seconds=5.0, until=swapped.is_set)
    swapping.join()
    assert set(load.statuses) == {200}, load.problems[:3]
    prints = [answer["models"]["text"] for answer in load.answers if "text" in answer["models"]]
    last = httpx.post(f"{url}/v1/predict", json=question(-1), timeout=60).json()["models"]["text"]
    assert set(prints) == {prints[0], last}
    assert last != prints[0]
