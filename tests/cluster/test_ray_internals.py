"""Only one module knows names of Ray that its public API does not have."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ray.data._internal.execution.operators import map_operator
from ray.util.metrics import Counter

from caslie_ray.cluster import ray_internals
from caslie_ray.cluster.connection import connect
from caslie_ray.cluster.ray_internals import hide_data_hints
from tests.checkouts import ROOT

PACKAGE = ROOT / "caslie_ray"
PRIVATE = re.compile(r"\bray(\.\w+)*\._(?!_)|\bray\.core\.generated\b|\bray\.experimental\.internal_kv\b")


def private_names(path: Path) -> list[str]:
    """Names of Ray's private modules in the imports, attributes and strings of a module."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return [name for name in found if PRIVATE.search(name)]


def test_no_other_module_names_what_is_private_to_ray() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if path.name != "ray_internals.py"]
    assert {str(path): found for path in others if (found := private_names(path))} == {}


def test_a_private_name_is_found(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text("import ray\nfrom ray._raylet import ObjectRef\nray._private.state.state.actors()\n")
    assert "ray._raylet.ObjectRef" in private_names(source)
    assert "ray._private.state.state.actors" in private_names(source)


def test_ray_still_has_what_is_used(ray_cluster: None) -> None:
    connect()
    assert ray_internals.draining_nodes() == {}
    assert ray_internals.max_cluster_resources() is None
    ray_internals.autoscaler_status()
    ray_internals.cluster_config()
    ray_internals.start_at_zero(Counter("caslie_test_counter", "For this test."))


def test_ray_data_says_nothing_of_stages_that_ask_for_cpus_and_gpus(caplog: pytest.LogCaptureFixture) -> None:
    hide_data_hints()
    logger = map_operator.logger
    logger.addHandler(caplog.handler)
    try:
        map_operator._canonicalize_ray_remote_args({"num_cpus": 1, "num_gpus": 0.5})
        logger.warning("another warning")
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records][:1] == ["another warning"]
