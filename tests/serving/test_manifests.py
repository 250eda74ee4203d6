"""The manifests of Kubernetes against KubeRay's own schemas, the Serve config against Ray's, and the Dockerfile.

The schemas are those of KubeRay's custom resource definitions (feeaf72, Apache-2.0), without descriptions.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from ray.serve.schema import ServeDeploySchema

from caslie_ray import __version__
from caslie_ray.serving.application import Arguments

ROOT = Path(__file__).resolve().parents[2]
JOBS = ROOT / "jobs"


def schema(kind: str) -> Draft202012Validator:
    text = gzip.decompress((Path(__file__).parent / f"kuberay_{kind}.json.gz").read_bytes())
    return Draft202012Validator(_strict(json.loads(text)))


def _strict(node: Any) -> Any:
    """Refuse unknown keys, which a Kubernetes server would drop without a word."""
    if isinstance(node, list):
        return [_strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        strict["additionalProperties"] = bool(node.get("x-kubernetes-preserve-unknown-fields"))
    return strict


def manifest(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((JOBS / f"{name}.yaml").read_text(encoding="utf-8"))
    return document


def problems(kind: str, document: dict[str, Any]) -> list[str]:
    # Kubernetes fills metadata; its schema has no properties there.
    checked = {**document, "metadata": {}}
    return [f"{'.'.join(map(str, one.absolute_path))}: {one.message}" for one in schema(kind).iter_errors(checked)]


@pytest.mark.parametrize("kind", ["rayjob", "rayservice"])
def test_a_manifest_is_valid(kind: str) -> None:
    assert problems(kind, manifest(kind)) == []


def test_a_misspelled_key_is_found() -> None:
    broken = manifest("rayjob")
    broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    assert any("maxReplica" in problem for problem in problems("rayjob", broken))


def clusters() -> dict[str, dict[str, Any]]:
    job, service = manifest("rayjob")["spec"], manifest("rayservice")["spec"]
    return {"rayjob": job["rayClusterSpec"], "rayservice": service["rayClusterConfig"]}


@pytest.mark.parametrize("kind", ["rayjob", "rayservice"])
def test_versions_are_those_of_the_package(kind: str) -> None:
    pinned = re.search(r'"ray\[data,train,serve\]==([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pinned is not None
    cluster = clusters()[kind]
    assert cluster["rayVersion"] == pinned[1]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    images = {one["image"] for group in groups for one in group["template"]["spec"]["containers"]}
    assert images == {f"registry.example/caslie:{__version__}"}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert f"caslie:{__version__}" in dockerfile
    base = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    image = re.search(r"^FROM (\S+)$", dockerfile, re.MULTILINE)
    assert image is not None
    assert image[1] in json.dumps(base)
    assert "pip install --no-cache-dir '.[vllm]'" in dockerfile


def test_the_job_prefers_spot_and_keeps_its_driver_off_it() -> None:
    groups = {group["groupName"]: group for group in clusters()["rayjob"]["workerGroupSpecs"]}
    spot, on_demand = groups["gpu-spot"], groups["gpu-on-demand"]
    assert spot["labels"] == {"ray.io/market-type": "spot"}
    assert spot["priority"] > on_demand["priority"]
    assert "nodeSelector" not in clusters()["rayjob"]["headGroupSpec"]["template"]["spec"]
    assert manifest("rayjob")["spec"]["backoffLimit"] > 0


def test_copied_files_of_the_image_exist() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = [name for line in re.findall(r"^COPY \S+ (.*) \S+$", dockerfile, re.MULTILINE) for name in line.split()]
    assert copied
    assert all((ROOT / name).exists() for name in copied)


def serve_configs() -> list[dict[str, Any]]:
    return [manifest("serve"), yaml.safe_load(manifest("rayservice")["spec"]["serveConfigV2"])]


def test_serve_configs_are_valid_and_equal() -> None:
    ours, kubernetes = serve_configs()
    for config in (ours, kubernetes):
        ServeDeploySchema.model_validate(config)
        (application,) = config["applications"]
        assert application["import_path"] == "caslie_ray.serving.application:build"
        Arguments(**application["args"])
    assert ours == kubernetes
