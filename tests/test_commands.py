"""The command `caslie`, and the scripts in jobs/ that are the same."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import caslie_ray
from caslie_ray import jobs
from caslie_ray.cli import WRONG_ARGUMENTS
from caslie_ray.commands import COMMANDS, caslie, command_parser

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPT = "import sys; from caslie_ray.commands import caslie; sys.exit(caslie())"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
    )  # fmt: skip


def test_every_job_is_a_command() -> None:
    scripts = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    functions = {name.removesuffix("_job") for name in jobs.__all__ if name.endswith("_job")}
    own = {name for name, command in COMMANDS.items() if command.module == jobs.__name__}
    assert set(COMMANDS) == scripts
    assert own == functions
    for name, command in COMMANDS.items():
        assert callable(getattr(importlib.import_module(command.module), f"{name}_job"))


def test_the_package_installs_it() -> None:
    module, _, function = PROJECT["project"]["scripts"]["caslie"].partition(":")
    assert getattr(importlib.import_module(module), function) is caslie


def test_the_package_installs_what_its_modules_read() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["caslie_ray"]
    package = ROOT / "caslie_ray"
    tracked = subprocess.run(["git", "ls-files", "."], capture_output=True, text=True, cwd=package, check=True).stdout
    for path in tracked.splitlines():
        if not path.endswith((".py", "README.md")):
            assert any(fnmatch(path, one.replace("**/", "")) for one in patterns), path


def test_help_lists_the_jobs_and_imports_no_library() -> None:
    heavy = "{'ray', 'torch', 'pyarrow', 'pydantic', 'numpy'}"
    done = run(
        "-c", f"import sys, atexit; atexit.register(lambda: print({heavy} & set(sys.modules))); {SCRIPT}", "--help"
    )
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    for name, command in COMMANDS.items():
        assert any(line.split() == [name, *command.description.splitlines()[0].split()] for line in lines), name
    assert lines[-1] == "set()"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        caslie(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"caslie_ray {caslie_ray.__version__}\n")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["captoin", "--run", "x"], "unknown job 'captoin': did you mean caption?"),
        (["nothing-like-it"], "choose from ingest, caption, fuse"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["caption", "--nope", "--run", "x"], "caslie caption: error: unrecognized arguments: --nope"),
        (["caption"], "the following arguments are required: --run"),
    ],
)
def test_unknown_commands_are_wrong_arguments(words: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        caslie(words)
    assert caught.value.code == WRONG_ARGUMENTS
    assert shown in capsys.readouterr().err


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert caslie([]) == WRONG_ARGUMENTS
    assert "jobs:" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_how_it_is_run(name: str) -> None:
    text = command_parser(name).format_help()
    assert text.startswith(f"usage: caslie {name} ")
    assert f"    caslie {name} " in text


def test_the_help_of_a_script_differs_only_in_its_own_command() -> None:
    command, script = run("-c", SCRIPT, "benchmark", "--help"), run("jobs/benchmark.py", "--help")
    assert (command.returncode, script.returncode) == (0, 0), command.stderr + script.stderr
    mine, its = (done.stdout.partition("\n\n")[2] for done in (command, script))
    assert mine != its
    assert mine.replace("    caslie benchmark ", "    python jobs/benchmark.py ") == its


def test_a_command_runs_its_job(tmp_path: Path) -> None:
    words = ["--run", str(tmp_path / "run"), "--plan"]
    command, script = run("-c", SCRIPT, "ingest", *words), run("jobs/ingest.py", *words)
    assert (command.returncode, script.returncode) == (0, 0), command.stderr + script.stderr
    assert "reads            the miniature world" in command.stdout
    assert command.stdout == script.stdout
