"""The command line that all jobs share."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from caslie_ray.cli import COMPLETE, FAILED, UNFINISHED, WRONG_ARGUMENTS, Arguments, main
from caslie_ray.errors import EngineError, JobError, RunError
from caslie_ray.profiles import ProfileError
from caslie_ray.storage.lease import RunLease
from caslie_ray.storage.run import open_run
from caslie_ray.tasks import UnknownTask

ROOT = Path(__file__).parents[1]
ABOUT = """Count the moons.

Run as:
    python jobs/moons.py --run runs/demo
"""


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def complete(arguments: Arguments) -> int:
    return COMPLETE


def failing(error: BaseException) -> Callable[[Arguments], int]:
    def job(arguments: Arguments) -> int:
        raise error

    return job


def stopped_by_argparse(capsys: pytest.CaptureFixture[str], *argv: str, source: bool = False) -> tuple[object, str]:
    with pytest.raises(SystemExit) as caught:
        main(ABOUT, complete, source=source, argv=argv)
    told = capsys.readouterr()
    return caught.value.code, told.out + told.err


def test_the_exit_codes_are_those_of_the_interface() -> None:
    assert (COMPLETE, FAILED, WRONG_ARGUMENTS, UNFINISHED) == (0, 1, 2, 3)


def test_what_the_job_is_given(tmp_path: Path) -> None:
    seen: list[Arguments] = []

    def job(arguments: Arguments) -> int:
        seen.append(arguments)
        return UNFINISHED

    where = str(tmp_path / "run")
    argv = ["--run", where, "--source", "a.json", "--source", "s3://b/c", "--plan", "--quiet"]
    argv += ["--set", "schedule=staged", "votes.audit=0.5", "--set", "votes.schedule=full"]
    assert main(ABOUT, job, source=True, argv=argv) == UNFINISHED
    assert main(ABOUT, job, source=True, argv=["--run", where]) == UNFINISHED
    full, plain = seen
    assert (full.run.uri, full.run.root) == (where, where)
    assert (full.sources, full.plan, full.quiet) == (("a.json", "s3://b/c"), True, True)
    assert (full.profile.schedule, full.profile.votes.audit, full.profile.votes.schedule) == ("staged", 0.5, "full")
    assert (plain.profile.name, plain.sources, plain.plan, plain.quiet) == ("mini", (), False, False)
    assert not Path(where).exists()


@pytest.mark.parametrize("code", [COMPLETE, FAILED, UNFINISHED])
def test_the_jobs_own_code_is_the_processs(code: int, tmp_path: Path) -> None:
    assert main(ABOUT, lambda arguments: code, argv=["--run", str(tmp_path)]) == code


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (JobError("name the data with --source"), FAILED, "error: name the data with --source"),
        (RunError("cannot read x.parquet: cut"), FAILED, "error: cannot read x.parquet: cut"),
        (EngineError("no chat template"), FAILED, "error: no chat template"),
        (UnknownTask("the run holds rows of the task 'x'"), FAILED, "error: the run holds rows of the task 'x'"),
        (ProfileError("two voters are one"), WRONG_ARGUMENTS, "error: two voters are one"),
        (KeyboardInterrupt(), UNFINISHED, "stopped: finished work is kept; run the same command again"),
    ],
)
def test_how_a_job_ends(
    error: BaseException, code: int, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(ABOUT, failing(error), argv=["--run", str(tmp_path)]) == code
    assert capsys.readouterr().err.splitlines()[-1] == told


def test_a_bug_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        main(ABOUT, failing(ZeroDivisionError()), argv=["--run", str(tmp_path)])


def test_the_help_explains_options_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = stopped_by_argparse(capsys, "--help", source=True)
    assert code == 0
    assert ABOUT in text
    for option in ("--profile NAME|FILE", "--run URI", "--source PATH|URI", "--set KEY=VALUE", "--plan", "--quiet"):
        assert option in text
    for profile in ("mini", "smol", "caslie-s", "caslie-m", "caslie-l"):
        assert profile in text
    for meaning in ("0  complete", "1  failed", "2  wrong arguments or profile", "3  stopped with work left"):
        assert meaning in text


def test_a_job_without_sources_has_no_such_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--source" not in stopped_by_argparse(capsys, "--help")[1]
    assert stopped_by_argparse(capsys, "--run", "x", "--source", "y")[0] == WRONG_ARGUMENTS


def test_a_refused_job_names_the_running_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--run", str(tmp_path / "run")]

    def job(arguments: Arguments) -> int:
        assert main(ABOUT, complete, argv=argv, prog="caslie fuse") == FAILED
        return COMPLETE

    assert main(ABOUT, job, argv=argv, prog="caslie caption") == COMPLETE
    assert " caption (process " in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["--run"], ["--run", "x", "--sett", "a=b"], ["--run", "x", "stray"]])
def test_wrong_arguments(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped_by_argparse(capsys, *argv)[0] == WRONG_ARGUMENTS


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--set", "votes.sheduel=full"], "schedule"),
        (["--set", "vote.schedule=full"], "votes"),
        (["--set", "votes.schedule"], "votes.schedule"),
        (["--set", "votes.schedule=soon"], "votes.schedule"),
        (["--profile", "minni"], "mini"),
        (["--profile", "no/such/file.yaml"], "no/such/file.yaml"),
        (["--run", "nowhere://bucket"], "nowhere://bucket"),
    ],
)
def test_a_wrong_setting_is_named(
    argv: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    never = failing(AssertionError("the job must not start"))
    assert main(ABOUT, never, argv=["--run", str(tmp_path / "run"), *argv]) == WRONG_ARGUMENTS
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert told in text
    assert "Traceback" not in text


_JOB = """
import signal, sys, time
from caslie_ray.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background of a shell
def job(arguments):
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        arguments.run.write_json("summary/kept.json", True)
    return 0
sys.exit(main("A job.", job))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_process_says_to_run_again(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _JOB, "--run", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, told = process.communicate(timeout=30)
    assert process.returncode == UNFINISHED
    assert told == "stopped: finished work is kept; run the same command again\n"
    assert (tmp_path / "summary/kept.json").exists()


_TAKEN = """
import functools, sys, time
from caslie_ray import cli
cli.RunLease = functools.partial(cli.RunLease, lease_s=1.2)
def job(arguments):
    arguments.run.write_json("summary/first.json", True)
    print("ready", flush=True)
    if sys.stdin.readline() == "wait\\n":
        time.sleep(60)
    arguments.run.write_json("summary/late.json", True)
    return 0
sys.exit(cli.main("A job.", job))
"""


@pytest.mark.parametrize("then", ["wait", "write"])
def test_a_job_whose_run_was_taken_over_reports_it_and_stops_writing(then: str, tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    with subprocess.Popen(
        [sys.executable, "-c", _TAKEN, "--run", run.root],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        with RunLease(run, "fuse", lease_s=1.2):
            process.send_signal(signal.SIGCONT)
            _, stderr = process.communicate(f"{then}\n", timeout=60)
    assert process.returncode == UNFINISHED
    assert stderr == "stopped: another job has taken over the run, because this one did not renew its lease\n"
    assert [info.base_name for info in run.listed(run.path("summary"))] == ["first.json"]


_WAITS_FOR_RAY = """
import sys, time
import ray
from caslie_ray.cli import main
from caslie_ray.cluster.connection import connect
def job(arguments):
    connect()
    waiting = ray.remote(num_cpus=0)(lambda: time.sleep(60)).remote()
    print("ready", flush=True)
    ray.get(waiting)  # as while models are loaded
    return 0
sys.exit(main("A job.", job))
"""


def test_a_process_that_waits_for_ray_is_stopped_too(tmp_path: Path) -> None:
    """Ray looks for signals while it waits, and knows no exception of theirs but KeyboardInterrupt."""
    with subprocess.Popen(
        [sys.executable, "-c", _WAITS_FOR_RAY, "--run", str(tmp_path)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(2)
        process.send_signal(signal.SIGTERM)
        since = time.monotonic()
        _, told = process.communicate(timeout=50)
    assert process.returncode == UNFINISHED, told
    assert "run the same command again" in told
    assert time.monotonic() - since < 10, "it waited to the end"


def test_a_job_may_have_no_run_and_its_own_options(tmp_path: Path) -> None:
    seen: list[Arguments] = []

    def job(arguments: Arguments) -> int:
        seen.append(arguments)
        arguments.run.write_json("summary/x.json", 1)
        return COMPLETE

    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--moons", type=int)

    def run(*argv: str) -> int:
        return main(ABOUT, job, run_required=False, add_options=add_options, argv=argv)

    assert run("--moons", "4") == COMPLETE
    assert run("--run", str(tmp_path)) == COMPLETE
    temporary, kept = seen
    assert (temporary.options.moons, kept.options.moons) == (4, None)
    assert (temporary.kept, kept.kept) == (False, True)
    assert not Path(temporary.run.root).exists()
    assert (tmp_path / "summary/x.json").exists()
