"""The command line of all jobs: arguments, logging, and exit codes."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from caslie_ray.errors import EngineError, JobError, RunError, SourceError
from caslie_ray.profiles import Profile, ProfileError, load_profile
from caslie_ray.storage.lease import RunLease
from caslie_ray.storage.run import Run, open_run
from caslie_ray.tasks import UnknownTask
from caslie_ray.tolerant_output import tolerant_output

__all__ = ["COMPLETE", "FAILED", "UNFINISHED", "WRONG_ARGUMENTS", "Arguments", "job_parser", "main"]

COMPLETE, FAILED, WRONG_ARGUMENTS, UNFINISHED = 0, 1, 2, 3

_EPILOG = """\
exit codes:
  0  complete; rejects and error rows are in the tables
  1  failed; the last line says why
  2  wrong arguments or profile
  3  stopped with work left; run the same command again

Commands are safe to repeat: finished work is not repeated. One job at a time works on a run.
"""


@dataclass(frozen=True)
class Arguments:
    """The arguments of a job.

    Attributes:
        run: where its tables are.
        profile: its settings.
        plan: only print what would be done, its time and its cost.
        sources: the data sets to read; empty for the miniature world.
        quiet: no progress lines.
        status: only print the state of the run.
        kept: False if no run was given: its temporary folder is deleted at the end.
        options: the job's own options.
    """

    run: Run
    profile: Profile
    plan: bool
    sources: tuple[str, ...]
    quiet: bool
    status: bool = False
    kept: bool = True
    options: argparse.Namespace = field(default_factory=argparse.Namespace)


class _Stopped(KeyboardInterrupt):
    """SIGTERM. A KeyboardInterrupt, so that no handler of errors catches it, and Ray lets it through."""


def main(
    description: str,
    job: Callable[[Arguments], int],
    *,
    source: bool = False,
    status: bool = False,
    run_required: bool = True,
    reads_only: bool = False,
    add_options: Callable[[argparse.ArgumentParser], object] | None = None,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
) -> int:
    """Run a job from the command line and return its exit code.

    The job holds the lease of the run, unless it only reads it: a second job on it is refused. If the reader of its
    output ends, as ``head`` does, the job continues without output.

    Args:
        description: the job's docstring, shown by ``--help``.
        job: does the work and returns an exit code.
        source: whether the job takes ``--source``.
        status: whether the job takes ``--status``.
        run_required: whether ``--run`` must be given; otherwise a temporary folder is used.
        reads_only: whether the job only reads the run.
        add_options: adds the job's own options to the parser.
        argv: the arguments; None: those of the process.
        prog: the command in the help, with the job's name as its last word; None: that of the process.
    """
    with tolerant_output():
        parser = job_parser(
            description, source=source, status=status, run_required=run_required, add_options=add_options, prog=prog
        )
        options = parser.parse_args(argv)
        with _run_or_temporary(options.run) as run:
            return _main(parser, job, options, run, leased=not reads_only)


@contextmanager
def _run_or_temporary(run: str | None) -> Iterator[str]:
    if run is not None:
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="caslie-", ignore_cleanup_errors=True) as folder:
        yield folder


def _main(
    parser: argparse.ArgumentParser,
    job: Callable[[Arguments], int],
    options: argparse.Namespace,
    run: str,
    *,
    leased: bool,
) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    for noisy in ("httpx", "httpcore", "ray", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        profile = load_profile(options.profile, options.set)
        arguments = Arguments(
            open_run(run), profile, options.plan, tuple(getattr(options, "source", ())), options.quiet,
            getattr(options, "status", False), options.run is not None, options,
        )  # fmt: skip
    except (ProfileError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS
    signal.signal(signal.SIGTERM, _stop)
    lease: RunLease | None = None
    try:
        if arguments.plan or arguments.status or not leased:
            return job(arguments)
        name = Path(parser.prog.split()[-1]).stem
        with RunLease(arguments.run, name, submission=_submission(os.environ), on_lost=_end_main_thread) as lease:
            return job(replace(arguments, run=lease.run))
    except (ProfileError, SourceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_ARGUMENTS
    except (RunError, EngineError, JobError, UnknownTask) as error:
        if lease is not None and lease.taken_over:
            return _taken_over()
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        if lease is not None and lease.taken_over:
            return _taken_over()
        print("stopped: finished work is kept; run the same command again", file=sys.stderr)
        return UNFINISHED


def _taken_over() -> int:
    print("stopped: another job has taken over the run, because this one did not renew its lease", file=sys.stderr)
    return UNFINISHED


def _stop(number: int, frame: FrameType | None) -> None:
    raise _Stopped


def _end_main_thread() -> None:
    main_thread = threading.main_thread().ident
    if main_thread is not None:
        signal.pthread_kill(main_thread, signal.SIGTERM)


def _submission(environment: Mapping[str, str]) -> str:
    """Return the submission id of this process in a Ray cluster; empty if it was started by hand."""
    try:
        config = json.loads(environment.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        return str(config.get("metadata", {}).get("job_submission_id", ""))
    except (ValueError, AttributeError):
        return ""


def job_parser(
    description: str,
    *,
    source: bool = False,
    status: bool = False,
    run_required: bool = True,
    add_options: Callable[[argparse.ArgumentParser], object] | None = None,
    prog: str | None = None,
) -> argparse.ArgumentParser:
    """Return the parser of a job's arguments; see `main` for those of this function."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--profile", default="mini", metavar="NAME|FILE",
        help="settings: mini (default; this machine, no GPU), smol, caslie-s, caslie-m, caslie-l, or a YAML file",
    )  # fmt: skip
    parser.add_argument(
        "--run",
        required=run_required,
        metavar="URI",
        help="directory or object store (s3://…, gs://…) for all tables"
        + ("" if run_required else "; without it a temporary directory, deleted at the end"),
    )
    if source:
        parser.add_argument(
            "--source", action="append", default=[], metavar="PATH|URI",
            help="data set in the MMECInstruct format, or a catalogue: .csv, .tsv, .xml, .json, .jsonl, .parquet,"
            " .tar or a folder of them; may be given more than once. Without it the mini profile draws the miniature"
            " world",
        )  # fmt: skip
    parser.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE",
        help="override a setting of the profile, such as schedule=staged or lineup.voters.phi.batch_size=8",
    )  # fmt: skip
    parser.add_argument(
        "--plan", action="store_true", help="only print what would be done, how long it takes and what it costs"
    )
    if status:
        parser.add_argument(
            "--status", action="store_true",
            help="only print the state of the run: done, left, errors, and which job holds it; does not start Ray",
        )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    if add_options is not None:
        add_options(parser)
    return parser
