"""Jobs as users submit them: the README's cluster on one machine, which asks for a token."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from caslie_ray.storage.run import open_run
from tests.clusters import ROOT, until
from tests.object_store import free_port
from tests.worlds import rows

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RAY = str(Path(sys.executable).parent / "ray")
MODELS = ["training.variants=[caslie]", "training.epochs=1", "experiments.shuffled=false", "votes.rule=always"]
DONE = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)
CLUSTER = (ROOT / "caslie_ray" / "cluster" / "README.md").read_text(encoding="utf-8")
SECTION = CLUSTER.partition("## A cluster on one machine")[2]
BLOCK = re.search(r"```bash\n(.*?)(ray job submit.*?)```", SECTION, re.DOTALL)
assert BLOCK is not None, "the README's lines to paste"
STARTED, SUBMITTED = BLOCK.groups()
# Other clusters may run on this machine: ours has ports and a folder of its own.
SHELL = """
set -e
ray() {{
  case $1 in
    start) command ray "$@" --port={gcs} --dashboard-port={dashboard} --ray-client-server-port={client} \\
      --dashboard-agent-listen-port=0 --temp-dir={folder} ;;
    *) command ray "$@" ;;
  esac
}}
"""


@dataclass
class Head:
    """A head that the README's lines have started."""

    address: str
    folder: Path
    shell: str
    environment: dict[str, str]

    @property
    def token(self) -> str:
        return (self.folder / "home" / ".ray" / "auth_token").read_text()

    @property
    def client(self) -> JobSubmissionClient:
        # Ray looks for a token in the environment once a process; in this one it may have looked before.
        return JobSubmissionClient(self.address, headers={"Authorization": f"Bearer {self.token}"})

    def paste(self, lines: str, run: Path) -> str:
        """Run lines of the README in a shell, on another port and another run; return what they print."""
        port = self.address.rpartition(":")[2]
        lines = lines.replace("$PWD/runs/cluster", str(run)).replace("runs/cluster", str(run)).replace("8265", port)
        done = subprocess.run(
            ["bash", "-c", self.shell + lines],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        return done.stdout

    def submit(self, *words: str, submission: str | None = None) -> tuple[JobStatus, str]:
        """Submit a job through the API; return its status and its log."""
        client = self.client
        line = " ".join(f"'{word}'" for word in words)
        one = client.submit_job(
            entrypoint=f"{sys.executable} {line}", submission_id=submission, runtime_env={"working_dir": str(ROOT)}
        )
        until(lambda: client.get_job_status(one) in DONE, 240, one)
        return client.get_job_status(one), client.get_job_logs(one)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets want short names
    (folder / "home").mkdir()
    dashboard = free_port()
    shell = SHELL.format(gcs=free_port(), dashboard=dashboard, client=free_port(), folder=folder)
    without = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_AUTH", "RAY_ADDRESS"))}
    own = {"HOME": str(folder / "home"), "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    one = Head(f"http://127.0.0.1:{dashboard}", folder, shell, {**without, **own, **path})
    try:
        one.paste(STARTED, folder)
        yield one
    finally:
        for process in psutil.process_iter(["cmdline"]):
            if any(str(folder) in word for word in process.info["cmdline"] or ()):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def pasted(head: Head, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run that the README's lines make, and what they print."""
    run = tmp_path_factory.mktemp("pasted") / "run"
    exports = "".join(line for line in STARTED.splitlines(keepends=True) if line.startswith("export"))
    return run, head.paste(exports + SUBMITTED, run)


def test_the_lines_of_the_readme_show_a_running_cluster(head: Head, pasted: tuple[Path, str]) -> None:
    run, printed = pasted
    assert "ray stop" not in STARTED + SUBMITTED, "the cluster stays until it was looked at"
    assert "pipeline complete" in printed
    assert re.search(r"done +\d+ \(100\.0%\)", printed), "of --status"
    assert "JobStatus.SUCCEEDED" in printed, "of ray job list"
    assert (run / "report" / "index.html").is_file()
    opened = open_run(str(run))
    assert [row["view_id"] for row in rows(opened)] == [row["view_id"] for row in rows(opened, "views")] != []
    assert all(row["caption"] for row in rows(opened))


def test_a_job_s_log_contains_no_line_of_ray_data(pasted: tuple[Path, str]) -> None:
    _, printed = pasted
    assert "read 19 rows" in printed
    assert not re.findall(r"^.*(?:Progress bars|DataContext|ray\.data).*$", printed, re.MULTILINE)


def test_the_dashboard_requires_the_token(head: Head) -> None:
    def ask(path: str, **headers: str) -> int:
        try:
            with urlopen(Request(head.address + path, headers=headers), timeout=30) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    token = {"Authorization": f"Bearer {head.token}"}
    assert ask("/") == 200, "the page, which asks for the token"
    assert (ask("/nodes?view=summary", **token), ask("/nodes?view=summary")) == (200, 401)


def test_each_job_runs_to_its_end_when_it_is_submitted(head: Head, pasted: tuple[Path, str]) -> None:
    run = open_run(str(pasted[0]))
    for name in ("train", "predict"):
        more = ["--run", run.uri, "--set", *MODELS]
        status, said = head.submit(f"jobs/{name}.py", *more, submission=f"{name}-1")
        assert status == JobStatus.SUCCEEDED, said
        assert run.read_json(f"summary/{name}.json")["job"] == name
    samples = rows(run, "samples")
    assert len(rows(run, "instructions")) == 3 * len(samples)
    assert len(rows(run, "predictions")) == sum(row["split"] in ("ind", "ood") for row in samples)
    # The same under another id: the data set is drawn and read again; nothing else is left to do.
    again = ["--run", run.uri, "--set", "miniature.train=1", "miniature.validation=0", "miniature.ind=1"]
    status, said = head.submit("jobs/pipeline.py", *again, "miniature.ood=1", *MODELS, submission="again")
    assert status == JobStatus.SUCCEEDED, said
    assert said.count("nothing to do") == 3, said
    assert "page  " in said


def test_a_client_without_a_token_is_refused(head: Head) -> None:
    without = {**head.environment, "RAY_AUTH_MODE": "disabled"}
    listed = subprocess.run(
        [RAY, "job", "list", "--address", head.address],
        env=without,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert listed.returncode != 0
    assert "auth" in (listed.stdout + listed.stderr).lower()
