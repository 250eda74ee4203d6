"""Jobs as users submit them: `ray job submit --working-dir .`, to a cluster that asks for a token."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from caslie_ray.runs import open_run
from tests.clusters import ROOT, until
from tests.object_store import free_port
from tests.worlds import draw, rows, voter

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RAY = str(Path(sys.executable).parent / "ray")
LINEUP = ["--set", f"lineup.voters={json.dumps([voter('llama-3b')])}"]
MODELS = ["--set", "training.variants=[caslie]", "experiments.shuffled=false", "training.epochs=1"]
DONE = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)


@dataclass
class Head:
    """A head that `ray start` has started, with two CPUs and a declared GPU."""

    address: str
    token: str
    environment: dict[str, str]

    @property
    def client(self) -> JobSubmissionClient:
        # Ray looks for a token in the environment once a process; in this one it may have looked before.
        return JobSubmissionClient(self.address, headers={"Authorization": f"Bearer {self.token}"})

    def submit(self, *words: str, submission: str | None = None) -> tuple[JobStatus, str]:
        """Submit a job through the API; return how it ended and what it said."""
        client = self.client
        line = " ".join(f"'{word}'" for word in words)
        one = client.submit_job(
            entrypoint=f"{sys.executable} {line}", submission_id=submission, runtime_env={"working_dir": str(ROOT)}
        )
        until(lambda: client.get_job_status(one) in DONE, 240, one)
        return client.get_job_status(one), client.get_job_logs(one)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    token = secrets.token_hex(32)
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **told}
    gcs, dashboard = free_port(), free_port()
    command = [
        RAY, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}", "--num-cpus=2",
        "--num-gpus=1", "--dashboard-agent-listen-port=0", f"--ray-client-server-port={free_port()}",
        f"--temp-dir={folder}",
    ]  # fmt: skip
    started = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    one = Head(f"http://127.0.0.1:{dashboard}", token, environment)

    def answers() -> bool:
        try:
            one.client.list_jobs()
        except (OSError, RuntimeError):  # it is not up yet
            return False
        return True

    try:
        until(lambda: started.poll() is not None or answers(), 90, "the head")
        assert started.poll() is None, "the head did not start"
        yield one
    finally:
        with suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(started.pid).children(recursive=True), psutil.Process(started.pid)]:
                process.kill()
        started.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_each_job_runs_to_its_end_when_it_is_submitted(head: Head, tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    source = str(draw(tmp_path / "source"))
    jobs: list[tuple[str, list[str]]] = [
        ("ingest", ["--source", source]),
        ("caption", LINEUP),
        ("fuse", []),
        ("train", MODELS),
        ("predict", MODELS),
    ]
    for name, more in jobs:
        status, said = head.submit(f"jobs/{name}.py", "--run", run.uri, *more, submission=f"{name}-1")
        assert status == JobStatus.SUCCEEDED, said
        assert run.read_json(f"summary/{name}.json")["job"] == name
    assert [row["view_id"] for row in rows(run)] == [row["view_id"] for row in rows(run, "views")]
    assert len(rows(run, "instructions")) == 3 * len(rows(run, "samples"))
    assert len(rows(run, "predictions")) == sum(row["split"] in ("ind", "ood") for row in rows(run, "samples"))
    # The same again under another id: nothing is left to do, and all of the pipeline is.
    again = ["--run", run.uri, "--source", source, *LINEUP, *MODELS]
    status, said = head.submit("jobs/pipeline.py", *again, submission="again")
    assert status == JobStatus.SUCCEEDED, said
    assert said.count("nothing to do") == 4, said
    assert "page  " in said


def test_the_command_of_the_readme_submits_the_pipeline(head: Head, tmp_path: Path) -> None:
    words = ["job", "submit", "--address", head.address, "--working-dir", ".", "--", sys.executable, "jobs/pipeline.py"]
    source = str(draw(tmp_path / "source"))
    more = ["--run", str(tmp_path / "run"), "--source", source, "--set", "captions.source=dataset", "votes.rule=always"]
    more += ["training.variants=[]", "experiments.shuffled=false"]
    done = subprocess.run(
        [RAY, *words, *more], cwd=ROOT, env=head.environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "pipeline complete" in done.stdout
    assert (tmp_path / "run" / "report" / "index.html").is_file()


def test_who_shows_no_token_is_refused(head: Head) -> None:
    without = {**head.environment, "RAY_AUTH_MODE": "disabled"}
    del without["RAY_AUTH_TOKEN"]
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
