"""Jobs whose output is closed by its reader, as ``head -1`` does."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from caslie_ray.cli import COMPLETE, UNFINISHED, WRONG_ARGUMENTS
from caslie_ray.storage.run import open_run
from caslie_ray.tolerant_output import tolerant_output

ROOT = Path(__file__).resolve().parent.parent

_JOB = """
import logging, sys
from caslie_ray.cli import main
from caslie_ray.monitoring.progress import Progress
def job(arguments):
    with Progress("count", 3, "moons", every_s=0.0) as progress:
        for number in range(3):
            print("line", "x" * 100_000)
            logging.getLogger("moons").info("counting %s", "x" * 100_000)
            progress.add(1)
    arguments.run.write_json("summary/done.json", True)
    return 3 if arguments.plan else 0
sys.exit(main("A job.", job, status=True))
"""


def closed(*argv: str, both: bool = False, lines: int = 1) -> tuple[int, str]:
    """Run the job, read some lines, and close its output; return its exit code and what standard error holds."""
    process = subprocess.Popen(
        [sys.executable, "-c", _JOB, *argv],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if both else subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    told = process.stderr.read() if process.stderr is not None else ""
    return process.wait(timeout=60), told


@pytest.mark.parametrize("both", [False, True])
def test_the_work_continues_without_its_output(tmp_path: Path, both: bool) -> None:
    code, told = closed("--run", str(tmp_path), both=both)
    assert code == COMPLETE
    assert "Traceback" not in told
    assert "BrokenPipe" not in told
    assert open_run(str(tmp_path)).read_json("summary/done.json") is True


def test_the_exit_code_is_the_jobs(tmp_path: Path) -> None:
    code, told = closed("--run", str(tmp_path), "--plan")
    assert (code, "BrokenPipe" in told) == (UNFINISHED, False)


@pytest.mark.parametrize(("argv", "expected"), [(["--help"], 0), (["--nonsense"], WRONG_ARGUMENTS)])
def test_help_and_errors_with_a_closed_pipe(argv: list[str], expected: int) -> None:
    code, told = closed(*argv, both=True, lines=0)
    assert (code, told) == (expected, "")
    code, told = closed(*argv, lines=0)
    assert code == expected
    assert "BrokenPipe" not in told


def test_output_that_was_closed_before_the_start(tmp_path: Path) -> None:
    """``python jobs/x.py >&-``: Python then has no standard output at all."""
    command = f'"{sys.executable}" -c "$JOB" --run "{tmp_path}" >&- 2>&-'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, env={"JOB": _JOB, "PATH": "/usr/bin:/bin"}, check=False)
    assert done.returncode == COMPLETE


def test_other_streams_are_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with tolerant_output():
        print("größer")
        assert not sys.stdout.isatty()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "größer\n"


def test_a_stream_without_a_file_drops_unread_output(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    with tolerant_output():
        print("one")
        print("two")


def test_letters_that_the_terminal_cannot_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error keeps Python's escapes, which lose nothing."""
    streams = [io.TextIOWrapper(io.BytesIO(), "ascii", errors) for errors in ("strict", "backslashreplace")]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with tolerant_output():
        print("größer")
        print("größer", file=sys.stderr)
    written = [stream.buffer.getvalue().decode("ascii") for stream in streams]
    assert written == ["gr??er\n", "gr\\xf6\\xdfer\n"]
