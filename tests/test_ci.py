"""What continuous integration runs, and that no test, promise or check falls out of it unnoticed."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ablation import MIN_SAMPLES, ORDER, TASKS, problems
from tests.long_tests import CHECKS, COLLECTED, FILE_SECONDS, LONG_TESTS, fault_files, in_check_faults, is_long

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.fixture(scope="module")
def collected(pytestconfig: pytest.Config) -> list[str]:
    """The node ids of all tests, long ones included."""
    found = pytestconfig.stash[COLLECTED]
    if _files(found) != MODULES:  # a session with some files only
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*command, "-m", "verify or not verify"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:]
        found = [line for line in done.stdout.splitlines() if "::" in line]
    return found


def _files(nodeids: list[str]) -> list[str]:
    return sorted({nodeid.partition("::")[0] for nodeid in nodeids})


def test_every_test_module_is_collected(collected: list[str]) -> None:
    assert _files(collected) == MODULES


def test_every_entry_of_the_long_tests_matches_a_test(collected: list[str]) -> None:
    rows = (ROOT / "tests" / "long_tests.md").read_text().count("\n| `")
    assert rows == len(LONG_TESTS) + len(FILE_SECONDS), "a row of long_tests.md cannot be read"
    unused = [test.prefix for test in LONG_TESTS if not any(one.startswith(test.prefix) for one in collected)]
    assert unused == []


def test_every_file_with_a_duration_exists() -> None:
    assert sorted(set(FILE_SECONDS) - set(MODULES)) == []


def test_the_short_tests_named_for_a_long_test_exist(collected: list[str]) -> None:
    short = [nodeid for nodeid in collected if not is_long(nodeid) or in_check_faults(nodeid)]
    named = {prefix for test in LONG_TESTS for prefix in test.short} - {*CHECKS}
    assert sorted(prefix for prefix in named if not any(one.startswith(prefix) for one in short)) == []


def test_check_faults_collects_the_files_of_its_tests(collected: list[str]) -> None:
    assert fault_files() == _files([nodeid for nodeid in collected if in_check_faults(nodeid)])


def test_only_the_list_of_long_tests_marks_tests_as_long() -> None:
    own = ("tests/conftest.py", "tests/test_ci.py")
    marked = [
        path for path in MODULES if path not in own and re.search(r"mark\.(verify|faults)", (ROOT / path).read_text())
    ]
    assert marked == [], "add them to tests/long_tests.md instead"


def test_markers_are_declared(pytestconfig: pytest.Config) -> None:
    builtin = {"parametrize", "usefixtures", "timeout", "skipif", "xfail", "filterwarnings"}
    declared = {line.partition(":")[0].partition("(")[0] for line in pytestconfig.getini("markers")} | builtin
    used = set()
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pytest.mark":
                used.add(node.attr)
    assert used <= declared


def test_ci_runs_the_tests_and_the_checks() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"\bmake ([\w-]+) 2>&1", script) == ["test", "check-demo", "check-faults"]
    assert "make test" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("failing", "status", "steps"),
    [
        ("", 0, ["test", "check-demo", "check-faults"]),
        ("test", 2, ["test"]),
        ("check-demo", 2, ["test", "check-demo"]),
        ("check-faults", 2, ["test", "check-demo", "check-faults"]),
    ],
)
def test_ci_ends_with_the_summary_of_pytest_and_the_status_of_the_step_that_failed(
    tmp_path: Path, failing: str, status: int, steps: list[str]
) -> None:
    """With a `make` that prints what pytest does, and notes what it is called for."""
    make = tmp_path / "make"
    make.write_text(
        f'#!/bin/bash\necho "$1" >> {tmp_path}/steps\n'
        '[ "$1" = test ] && echo "===== 7 passed, 2 deselected in 1.00s ====="\n'
        'echo "more of $1"\n'
        f'[ "$1" != "{failing}" ] || exit 2\n'
    )
    make.chmod(0o755)
    done = subprocess.run(
        [str(ROOT / ".ci" / "run")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == "===== 7 passed, 2 deselected in 1.00s ====="
    assert (tmp_path / "steps").read_text().split() == steps


def test_make_help_lists_every_target_for_users() -> None:
    makefile = (ROOT / "Makefile").read_text()
    listed = re.findall(r"^#   make ([\w-]+) +\S", makefile, re.MULTILINE)
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert targets is not None
    assert set(targets[1].split()) - set(listed) == {"browser", "lint", "types"}
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make ([\w-]+)", printed, re.MULTILINE) == listed


def metrics(**means: float) -> list[dict[str, Any]]:
    """Rows of `report/metrics.json` in which all tasks of a variant have one value."""
    return [
        {
            "task": f"task {number}", "split": split, "variant": variant, "metric": name, "primary": name == "f1",
            "value": value if name == "f1" else 0.0, "n": MIN_SAMPLES,
        }
        for split, tasks in TASKS.items()
        for variant, value in means.items()
        for number in range(tasks)
        for name in ("f1", "accuracy")
    ]  # fmt: skip


GOOD = {"text": 0.50, "uia": 0.55, "caslie": 0.60}


def test_the_ablation_of_the_paper_has_no_problems() -> None:
    assert problems(metrics(**GOOD)) == []


@pytest.mark.parametrize(
    ("means", "reason"),
    [
        ({**GOOD, "caslie": 0.52}, "caslie (0.520) exceeds uia (0.550) by -0.030"),
        ({**GOOD, "uia": 0.45}, "uia (0.450) exceeds text (0.500) by -0.050"),
        ({**GOOD, "caslie": 0.57}, "caslie (0.570) exceeds uia (0.550) by 0.020, expected at least 0.03"),
        ({"text": 0.5, "caslie": 0.6}, "uia has 0 tasks, expected 7"),
        ({**GOOD, "uia": float("nan")}, "uia (nan) exceeds text"),
    ],
)
def test_a_wrong_order_a_small_gap_or_a_missing_variant_is_a_problem(means: dict[str, float], reason: str) -> None:
    assert any(reason in line for line in problems(metrics(**means)))


def test_a_single_wrong_split_is_a_problem() -> None:
    rows = [row for row in metrics(**GOOD) if row["split"] == "ind"]
    rows += [row for row in metrics(**dict(zip(reversed(ORDER), GOOD.values(), strict=True))) if row["split"] == "ood"]
    found = problems(rows)
    assert found
    assert all(line.startswith("ood: ") for line in found)


def test_values_of_too_few_answers_are_a_problem() -> None:
    rows = metrics(**GOOD)
    rows[0]["n"] = MIN_SAMPLES - 1
    assert problems(rows) == [f"ind: text has fewer than {MIN_SAMPLES} answers: task 0 {MIN_SAMPLES - 1}"]


@pytest.mark.parametrize(("means", "status"), [(GOOD, 0), ({**GOOD, "caslie": 0.5}, 1)])
def test_the_check_of_a_run_reads_its_report(tmp_path: Path, means: dict[str, float], status: int) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(metrics(**means)))
    done = subprocess.run(
        [sys.executable, "-m", "tests.ablation", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert "ablation, ind: text 0.500 < uia 0.550 <" in done.stdout


def test_a_session_that_was_stopped_is_continued_and_then_everything_runs_again(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_two.py").write_text(
        "import pathlib\n\ndef test_one():\n    pass\n\ndef test_other():\n    assert pathlib.Path('mended').exists()\n"
    )

    def session() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "tests.resume", "--rootdir", str(tmp_path), "tests"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return re.sub(r" in [\d.]+s|=", "", done.stdout.splitlines()[-1]).strip()

    assert session() == "1 failed, 1 passed"
    (tmp_path / "mended").touch()
    assert session() == "1 passed, 1 deselected"
    assert session() == "2 passed"
