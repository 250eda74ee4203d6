"""The poller, against a metadata service and a Ray cluster that are both real processes' doing.

The cluster is started by ``python -m tests.cluster.test_preemption``: a process can join one cluster only, and the one
that runs the tests has joined another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from caslie_ray.cluster import preemption
from caslie_ray.cluster.preemption import Metadata, MetadataError, Notice, find_ray_node, main, parse_notice

_ROOT = Path(__file__).parents[2]
_NOW = datetime(2030, 1, 1, 8, 20, tzinfo=UTC)
_NOTICE = "spot/instance-action"
_NOTICE_S = 100


class Service:
    """EC2's metadata service, version 2, on 127.0.0.1: what is asked for without a token is refused."""

    def __init__(self) -> None:
        self.told = {"instance-life-cycle": "spot"}
        self.token = 1
        self.broken = 0
        self.asked: list[str] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                wanted = "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds"
                good = self.path == wanted[0] and int(self.headers.get(wanted[1], "0")) in range(1, 21601)
                self._answer(200 if good else 400, f"token-{service.token}")

            def do_GET(self) -> None:
                path = self.path.removeprefix("/latest/meta-data/")
                service.asked.append(path)
                if service.broken:
                    service.broken -= 1
                    self._answer(500, "")
                elif self.headers.get("X-aws-ec2-metadata-token") != f"token-{service.token}":
                    self._answer(401, "")
                elif path in service.told:
                    self._answer(200, service.told[path])
                else:
                    self._answer(404, "")

            def _answer(self, code: int, body: str) -> None:
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def give_notice(self, seconds: int) -> None:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        self.told[_NOTICE] = json.dumps({"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")})


@contextmanager
def serving() -> Iterator[Service]:
    service = Service()
    try:
        yield service
    finally:
        service.close()


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as one:
        yield one


def test_no_notice_is_none_and_a_notice_is_read(service: Service) -> None:
    metadata = Metadata(service.url)
    assert metadata.notice() is None
    service.told[_NOTICE] = '{"action": "terminate", "time": "2030-01-01T08:22:00Z"}'
    assert metadata.notice() == Notice("terminate", datetime(2030, 1, 1, 8, 22, tzinfo=UTC))
    assert metadata.life_cycle() == "spot"
    assert metadata.rebalance() is None


def test_an_expired_token_is_requested_again(service: Service) -> None:
    metadata = Metadata(service.url + "/")
    assert metadata.notice() is None
    service.token = 2
    assert metadata.life_cycle() == "spot"
    assert service.asked == [_NOTICE, "instance-life-cycle", "instance-life-cycle"]


def test_instance_metadata_is_requested_without_a_proxy(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert Metadata(service.url).life_cycle() == "spot"


def test_a_metadata_failure_is_an_error_and_the_next_request_is_sent(service: Service) -> None:
    metadata = Metadata(service.url)
    service.broken = 1
    with pytest.raises(MetadataError, match="500"):
        metadata.notice()
    assert metadata.notice() is None
    service.close()
    with pytest.raises(MetadataError, match="refused"):
        metadata.notice()


@pytest.mark.parametrize("text", ["", "<html>", "[]", "null", '{"time": "2030-01-01T08:22:00Z"}'])
def test_a_response_that_is_no_notice_is_an_error(service: Service, text: str) -> None:
    service.told[_NOTICE] = text
    with pytest.raises(MetadataError, match="not a notice"):
        Metadata(service.url).notice()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ('{"action": "terminate", "time": "2030-01-01T08:21:30Z"}', 90),
        ('{"action": "stop", "time": "2030-01-01T08:21:30"}', 90),
        ('{"action": "hibernate", "time": "2030-01-01T08:20:59.9Z"}', 59),
        ('{"action": "terminate", "time": "2030-01-01T08:19:00Z"}', 0),
        ('{"action": "terminate", "time": "soon"}', 120),
        ('{"action": "terminate", "time": 3}', 120),
        ('{"action": "terminate"}', 120),
    ],
)
def test_the_seconds_left_are_read_from_a_notice(text: str, seconds: int) -> None:
    assert parse_notice(text, _NOW).seconds_left(_NOW) == seconds


def test_the_help_explains_options_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    told = capsys.readouterr().out
    assert caught.value.code == 0
    for word in ("two minutes", "--every", "--address", "--node-id", "http://169.254.169.254", "exit codes", "token"):
        assert word in told


@pytest.mark.parametrize("every", ["0", "-1", "120", "often"])
def test_an_interval_too_long_to_see_a_notice_in_time_is_refused(
    every: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--every", every])
    assert caught.value.code == 2
    assert "--every" in capsys.readouterr().err


def test_without_a_ray_node_the_error_names_ray_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preemption, "_FIND_NODE_S", 0.0)
    assert find_ray_node(node_id="no such node") is None
    assert main(["--node-id", "no such node"]) == 1
    assert "`ray start` comes first" in capsys.readouterr().err


def test_it_is_small_on_every_node() -> None:
    heavy = {"ray", "torch", "transformers", "numpy"}
    loaded = f"import sys, caslie_ray.cluster.preemption; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.cluster
@pytest.mark.timeout(180)
def test_a_spot_node_is_drained_in_time_and_no_other() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.test_preemption"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["unnamed"][0] == 1
    assert "several Ray nodes on this machine" in seen["unnamed"][1]
    assert seen["on_demand"][0] == 0
    assert "not a spot instance" in seen["on_demand"][1]
    # Hiccups, and a risk that is only raised, drain nothing.
    assert seen["watching"] == [None, None]
    assert seen["draining_before"] == {}
    # The notice drains the node that it came to, with the time that it named.
    code, log = seen["drained"]
    assert code == 0, log
    assert seen["draining"].keys() == {seen["spot"]}
    assert 0.8 * _NOTICE_S < seen["draining"][seen["spot"]] <= _NOTICE_S
    expected = ("does not answer, retrying", "answers again", "higher risk of interruption", "EC2 will terminate this")
    for words in expected:
        assert log.count(words) == 1, (words, log)
    # What ran there goes on until the machine goes; nothing new comes.
    assert seen["actor"] == seen["spot"]
    assert seen["tasks"] == [seen["other"]]
    # A watcher whose node is gone ends by itself.
    assert seen["gone"][0] == 0
    assert "has gone" in seen["gone"][1]


def _until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while not true():
        if time.monotonic() > give_up:
            raise TimeoutError("it did not come about")
        time.sleep(0.1)


def _watcher(service: Service, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "caslie_ray.cluster.preemption", "--every", "0.2", "--metadata-url", service.url]
    return subprocess.Popen([*command, *arguments], cwd=_ROOT, stderr=subprocess.PIPE, text=True)


def _end(watcher: subprocess.Popen[str]) -> tuple[int, str]:
    _, log = watcher.communicate(timeout=60)
    return watcher.returncode, log


def _observe() -> dict[str, Any]:
    import ray
    from ray._private.state import state
    from ray.cluster_utils import Cluster

    seen: dict[str, Any] = {}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        spot, other = (cluster.add_node(num_cpus=1, resources={"worker": 1, name: 1}) for name in ("spot", "other"))
        ray.init(address=cluster.address, log_to_driver=False)
        seen |= {"spot": spot.node_id, "other": other.node_id}

        def where() -> str:
            return str(ray.get_runtime_context().get_node_id())

        class Busy:
            def where(self) -> str:
                return where()

        # A node with nothing to do is gone as soon as it is drained.
        busy: Any = ray.remote(num_cpus=0, resources={"spot": 0.1})(Busy).remote()
        ray.get(busy.where.remote())

        with serving() as first, serving() as second, serving() as third:
            third.told["instance-life-cycle"] = "on-demand"
            on_demand = _watcher(third, "--address", cluster.address, "--node-id", spot.node_id)
            seen["unnamed"] = _end(_watcher(third, "--address", cluster.address))
            seen["on_demand"] = _end(on_demand)

            watchers = [
                _watcher(service, "--address", cluster.address, "--node-id", node.node_id)
                for service, node in ((first, spot), (second, other))
            ]
            first.broken = 3
            first.told["events/recommendations/rebalance"] = '{"noticeTime": "2030-01-01T08:00:00Z"}'
            _until(lambda: all(service.asked.count(_NOTICE) >= 4 for service in (first, second)))
            seen["watching"] = [watcher.poll() for watcher in watchers]
            seen["draining_before"] = state.get_draining_nodes()

            first.give_notice(_NOTICE_S)
            noticed = time.time()
            seen["drained"] = _end(watchers[0])
            seen["draining"] = {node: at / 1000 - noticed for node, at in state.get_draining_nodes().items()}
            seen["actor"] = ray.get(busy.where.remote())
            task = ray.remote(num_cpus=0, resources={"worker": 0.01})(where)
            seen["tasks"] = sorted(set(ray.get([task.remote() for _ in range(20)])))

            cluster.remove_node(other, allow_graceful=False)
            seen["gone"] = _end(watchers[1])
    finally:
        ray.shutdown()
        cluster.shutdown()
    return seen


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # One that a caller's shell names is another cluster; and this one's address is to be found by nobody who looks in
    # Ray's usual folder. Sockets want a short path.
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder
        print(json.dumps(_observe()))
