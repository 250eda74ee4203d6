"""What differs between engines is in `engines/`: nothing else imports a model class or vLLM."""

from __future__ import annotations

import ast
from pathlib import Path

import caslie_ray

ROOT = Path(caslie_ray.__file__).parent
# They build models of their own: the miniature checkpoints, and what the benchmark compares with.
BUILDERS = ("engines", "miniature", "benchmark")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def test_only_engines_import_model_classes() -> None:
    modules = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] not in BUILDERS]
    assert len(modules) > 50
    assert [path for path in modules if imported(path) & {"transformers", "vllm", "bitsandbytes"}] == []


def test_fusion_imports_neither_captioning_nor_the_pipeline() -> None:
    text = "".join(path.read_text() for path in (ROOT / "fusion").glob("*.py"))
    assert "caslie_ray.captioning" not in text
    assert "caslie_ray.pipeline" not in text
