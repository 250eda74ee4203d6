"""The rooms of the package: what may import what, how large a module may be, and which modules are private.

A room is a package or module right below `caslie_ray`. Imports are read from the source with `ast`, those inside of
functions and under TYPE_CHECKING included.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the bottom up: a room imports only from rooms before it.
ROOMS = (
    *("errors", "hashing", "intervals", "prompts", "quality", "tolerant_output"),
    *("imaging", "engines", "storage", "tasks", "verdict_bits"),
    *("profiles", "catalogue", "roles", "pinning", "context_window"),
    *("cluster", "monitoring", "pipeline"),
    *("dataset", "captioning", "fusion", "training", "prediction"),
    *("miniature", "evaluation"),
    *("cli", "serving", "export", "jobs", "benchmark", "commands"),
)

MAX_LINES, MEDIAN_LINES = 350, 120
ENGINE_PACKAGES = ("vllm", "bitsandbytes")

# What other work removes at the moment; nothing may be added, and these lists go when they are empty.
CYCLES = {"tasks._definition_checks"}
PRIVATE: set[tuple[str, str]] = set()
MODEL_CLASSES: set[str] = set()


class Import(NamedTuple):
    """An import statement: the module that has it, and what it imports, as a dotted name."""

    module: str
    target: str

    @property
    def rooms(self) -> tuple[str, str]:
        return self.module.split(".")[0], self.target.split(".")[0]


def source_files(root: Path = ROOT) -> dict[str, Path]:
    """The modules of the package by dotted name without `caslie_ray.`; an `__init__` has the name of its package."""
    package = root / "caslie_ray"
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_names(path: Path) -> Iterator[str]:
    """Every name that a module imports, absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner_imports(files: Mapping[str, Path]) -> set[Import]:
    """The imports between modules of the package."""
    found = set()
    for module, path in files.items():
        for name in imported_names(path):
            package, _, target = name.partition(".")
            if package != "caslie_ray" or not target:
                continue
            # `from package import name`: the name is a module, or something that the package defines.
            target = target if target in files else target.rpartition(".")[0]
            if target and target != module:
                found.add(Import(module, target))
    return found


FILES = source_files()
IMPORTS = inner_imports(FILES)


def test_every_room_is_listed_in_the_import_order() -> None:
    rooms = {module.split(".")[0] for module in FILES} - {""}
    assert rooms <= set(ROOMS), "add the room to ROOMS, above all that it imports"


def test_no_room_imports_from_a_higher_one() -> None:
    place = {room: number for number, room in enumerate(ROOMS)}
    upward = {one for one in IMPORTS if one.rooms[0] in place and place[one.rooms[0]] < place.get(one.rooms[1], -1)}
    assert upward == set()


def test_no_module_imports_itself_through_others() -> None:
    graph: dict[str, set[str]] = {module: set() for module in FILES}
    for one in IMPORTS:
        if one.module not in CYCLES:
            graph[one.module].add(one.target)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' <- '.join(error.args[1])}")


def test_modules_are_small() -> None:
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in FILES.items()}
    assert {module for module, count in lines.items() if count > MAX_LINES} == set()
    assert statistics.median(lines.values()) <= MEDIAN_LINES


def test_private_modules_are_imported_in_their_own_room() -> None:
    def is_private(one: Import) -> bool:
        return any(part.startswith("_") for part in one.target.split(".")) and one.rooms[0] != one.rooms[1]

    assert {(one.module, one.target) for one in IMPORTS if is_private(one)} - PRIVATE == set()


def test_only_engines_know_model_classes() -> None:
    def model_classes(path: Path) -> list[str]:
        names = [name for name in imported_names(path) if name.split(".")[0] in (*ENGINE_PACKAGES, "transformers")]
        return [name for name in names if name.startswith(ENGINE_PACKAGES) or "Model" in name or "Config" in name]

    outside = {module for module, path in FILES.items() if module.split(".")[0] not in ("engines", "miniature")}
    assert {module for module in outside if model_classes(FILES[module])} - MODEL_CLASSES == set()


def test_a_forbidden_import_is_found(tmp_path: Path) -> None:
    package = tmp_path / "caslie_ray"
    (package / "storage").mkdir(parents=True)
    (package / "jobs.py").write_text("from caslie_ray.storage import run\n")
    (package / "storage" / "__init__.py").write_text("")
    source = "def late():\n    from caslie_ray.jobs import JOBS\n    import caslie_ray.storage._x\n"
    (package / "storage" / "run.py").write_text(source)
    (package / "storage" / "_x.py").write_text("")
    found = inner_imports(source_files(tmp_path))
    assert found == {
        Import("jobs", "storage.run"),
        Import("storage.run", "jobs"),
        Import("storage.run", "storage._x"),
    }


def test_what_actors_of_a_chain_import_loads_no_torch() -> None:
    """Each replica would take seconds and hundreds of MiB more; only the engine's own process loads it."""
    rooms = (
        "captioning",
        "prediction",
        "pipeline.pools",
        "fusion",
        "evaluation",
        "dataset",
        "monitoring.progress_monitor",
    )
    code = "; ".join(f"import caslie_ray.{room}" for room in rooms)
    check = "import sys; print({'torch', 'transformers', 'vllm', 'peft'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")
