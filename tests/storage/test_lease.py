"""One job at a time on a run: who is refused, who takes over, and what a former holder can still do."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import obstore
import psutil
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # it has none
from obstore.exceptions import AlreadyExistsError

from caslie_ray.errors import RunError, RunLocked, RunLost, StoreError
from caslie_ray.storage import _obstore_clients, claims, lease
from caslie_ray.storage._conditional_writes import create_if_absent
from caslie_ray.storage._process_identity import machine_id
from caslie_ray.storage.claims import Claim, holders
from caslie_ray.storage.filesystems import open_path
from caslie_ray.storage.lease import RunLease
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from tests.object_store import ObjectStore, object_store_in_environment

ROOT = Path(__file__).resolve().parents[2]

HOLDER = """
import sys
import pyarrow as pa
from caslie_ray.storage import claims, lease
from caslie_ray.storage._conditional_writes import create_if_absent
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS

uri, lease_s, machine = sys.argv[1], float(sys.argv[2]), sys.argv[3]
if machine:
    lease.machine_id = claims.machine_id = lambda: machine

def say(text):
    print(text, flush=True)

check = Run.check_lease

def check_and_wait(self):
    check(self)
    Run.check_lease = check
    say("checked")
    sys.stdin.readline()

with lease.RunLease(open_run(uri), "caption", submission="raysubmit_1", lease_s=lease_s) as held:
    say("held")
    for line in sys.stdin:
        do, stem = line.split()
        try:
            if do == "late":
                Run.check_lease = check_and_wait
            if do in ("write", "late"):
                rows = [{"image_id": stem, "image": b"former", "width": 1, "height": 1}]
                held.run.write("images", stem, pa.Table.from_pylist(rows, schema=SCHEMAS["images"]))
            elif do == "delete":
                held.run.delete(held.run.files("images"))
            elif do == "folder":
                held.run.delete_folder(held.run.path("images"))
            say("done")
        except Exception as error:
            say(type(error).__name__)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store_in_environment(["shop"]) as store:
        yield store


@dataclass(frozen=True)
class Place:
    """Where a run lives, by its URI; `store` is the server of an object store."""

    uri: str
    store: ObjectStore | None = None

    def run(self) -> Run:
        return open_run(self.uri)

    def lease(self) -> list[str]:
        run = self.run()
        return sorted(info.base_name for info in run.listed(run.path("lease")))


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "disk":
        yield Place(str(tmp_path / "run"))
        return
    store: ObjectStore = request.getfixturevalue("server")
    store.heal()
    yield Place(store.uri("shop", f"{tmp_path.name}/l%C3%A4ufe%20%231/run"), store)
    store.heal()


@dataclass
class Other:
    """A holder in a separate process, controlled over its standard input."""

    process: subprocess.Popen[str]

    def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        self.send(line)
        return self.read()


@contextmanager
def other_process(uri: str | Path, lease_s: float = 60.0, machine: str = "") -> Iterator[Other]:
    command = [sys.executable, "-c", HOLDER, str(uri), str(lease_s), machine]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            other = Other(process)
            assert other.read() == "held"
            yield other
        finally:
            process.kill()


def images(stem: str, image: bytes = b"new") -> pa.Table:
    rows = [{"image_id": stem, "image": image, "width": 1, "height": 1}]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["images"])


def claim_of(run: Path, epoch: int = 1, **changes: Any) -> Claim:
    """A claim as a job on another machine would leave it."""
    claim = replace(Claim("f00", "caption", "far", "far away", 1, 0.0, "", time.time(), 60.0), **changes)
    (run / "lease").mkdir(parents=True, exist_ok=True)
    (run / "lease" / f"epoch-{epoch:08d}.json").write_text(json.dumps(asdict(claim)))
    return claim


def wait_for(done: Callable[[], object], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.02)


# What was two holders at once.


def be_on_machine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(lease, "machine_id", lambda: name)
    monkeypatch.setattr(claims, "machine_id", lambda: name)


@dataclass(frozen=True)
class HeldBack(Run):
    """A run on whose store a renewal lands only when an event is set."""

    go: threading.Event | None = None
    waits: threading.Event | None = None

    def put(self, path: str, data: pa.Buffer | bytes) -> None:
        if self.go is not None and self.waits is not None and threading.current_thread().name == "lease":
            self.waits.set()
            assert self.go.wait(30)
        super().put(path, data)


def test_a_renewal_that_arrives_after_a_takeover_does_not_restore_the_lease(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, waits, told = threading.Event(), threading.Event(), threading.Event()
    run = place.run()
    run = HeldBack(run.fs, run.root, run.uri, go=go, waits=waits)
    be_on_machine(monkeypatch, "a")
    with RunLease(run, "caption", lease_s=1.2, on_lost=told.set) as former:
        assert waits.wait(15)
        be_on_machine(monkeypatch, "b")
        with RunLease(place.run(), "fuse") as later:
            assert not told.is_set()
            go.set()
            assert told.wait(15)
            assert former.taken_over
            assert [claim.job for claim in holders(place.run())] == ["fuse"]
            with pytest.raises(RunLost, match=r"another job has taken over .*run"):
                former.run.write("images", "0", images("0"))
            with pytest.raises(RunLost):
                former.run.write_json("summary/caption.json", {})
            later.run.write("images", "0", images("0"))
            time.sleep(0.5)
            assert not later.taken_over
    assert place.run().read("images")["image"].to_pylist() == [b"new"]


def test_a_clock_that_is_a_minute_ahead_does_not_take_over_a_live_job_s_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other_process(place.uri, lease_s=3.0) as other:
        be_on_machine(monkeypatch, "another machine")
        ahead = {name: getattr(time, name) for name in ("monotonic", "sleep", "strftime", "gmtime")}
        monkeypatch.setattr(lease, "time", SimpleNamespace(**ahead, time=lambda: time.time() + 61))
        with pytest.raises(RunLocked, match="caption"), RunLease(place.run(), "fuse"):
            pass
        assert [claim.pid for claim in holders(place.run())] == [other.process.pid]
        assert other.ask("write 0") == "done"


def test_a_stopped_holder_is_taken_over_and_does_nothing_more(place: Place) -> None:
    with other_process(place.uri, lease_s=1.2) as other:
        assert other.ask("write 0") == "done"
        assert other.ask("late 1") == "checked"
        other.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: psutil.Process(other.process.pid).status() == psutil.STATUS_STOPPED)
        begun = time.monotonic()
        with RunLease(place.run(), "fuse", lease_s=1.2) as later:
            assert 1.0 < time.monotonic() - begun < 30
            other.process.send_signal(signal.SIGCONT)
            # It had looked before it was stopped: the file gets there, and is not adopted.
            assert other.ask("go") == "done"
            stands = [info.base_name for info in later.run.listed(later.run.path("images"))]
            assert sorted(stands) == ["0-e00000001.parquet", "1-e00000001.parquet"]
            for run in (later.run, place.run()):
                assert [run.stem(path) for path in run.files("images")] == ["0"]
            assert [other.ask(f"{do} 2") for do in ("write", "delete", "folder")] == ["RunLost"] * 3
            later.run.write("images", "0", images("0"))
            assert later.run.read("images", ["image_id", "image"]).to_pylist() == [{"image_id": "0", "image": b"new"}]
            assert len(later.run.listed(later.run.path("images"))) == 3
    assert place.run().read("images")["image_id"].to_pylist() == ["0"]


# Who may have the run.


def rounds(
    worker: int, uri: str, environment: dict[str, str], number: int, machine: str, barrier: Any, results: Any
) -> None:
    """Claim a run again and again, each time together with the other processes; report the rounds that were won."""
    os.environ.update(environment)  # the fork server has that of an earlier test
    if machine:
        for module in (lease, claims):
            setattr(module, "machine_id", lambda: f"{machine} {worker}")  # noqa: B010  # mypy knows it as a function
    won: list[int] = []
    errors: list[str] = []
    for one in range(number):
        barrier.wait(60)
        try:
            with RunLease(open_run(uri), f"job {worker}", lease_s=8.0 if machine else 60.0):
                won.append(one)
                barrier.wait(60)
                barrier.wait(60)
        except RunLocked:
            barrier.wait(60)
            barrier.wait(60)
        except Exception as error:
            errors.append(repr(error))
            barrier.abort()
            break
    results.put((worker, won, errors))


@pytest.mark.parametrize(("workers", "number", "machine"), [(2, 8, ""), (8, 3, ""), (8, 1, "machine")])
def test_exactly_one_of_several_concurrent_claims_gets_the_run(
    place: Place, workers: int, number: int, machine: str
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["caslie_ray.storage.lease"])
    barrier, results = context.Barrier(workers), context.Queue()
    environment = place.store.environment() if place.store is not None else {}
    processes = [
        context.Process(target=rounds, args=(worker, place.uri, environment, number, machine, barrier, results))
        for worker in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        found = [results.get(timeout=90) for _ in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert [errors for _, _, errors in found if errors] == []
    assert sorted(one for _, won, _ in found for one in won) == list(range(number))
    # A run in which nothing was written is left as it was, on disks.
    assert place.store is None or len(place.lease()) == 2 * number


def test_a_second_job_is_refused_and_the_holder_is_named(place: Place) -> None:
    with other_process(place.uri) as other:
        begun = time.monotonic()
        with pytest.raises(RunLocked) as refused, RunLease(place.run(), "fuse"):
            pass
        assert time.monotonic() - begun < 5
        message = str(refused.value)
        assert f"caption (process {other.process.pid} on " in message
        assert "submitted as raysubmit_1" in message
        assert "wait for it, or stop it" in message
        assert [claim.pid for claim in holders(place.run())] == [other.process.pid]
        assert place.lease() == ["epoch-00000001.json"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_whose_process_is_gone_is_taken_over_at_once(place: Place, number: signal.Signals) -> None:
    with other_process(place.uri) as other:
        assert other.ask("write 0") == "done"
        other.process.send_signal(number)
        # Not waited for: a killed process whose parent has not looked is gone all the same.
        time.sleep(1.1 if place.store else 0.3)
        begun = time.monotonic()
        with RunLease(place.run(), "caption") as later:
            assert time.monotonic() - begun < 20
            assert later.run.read("images")["image_id"].to_pylist() == ["0"]
            assert [claim.pid for claim in holders(place.run())] == [os.getpid()]


def test_a_copy_of_a_run_has_all_that_was_finished_before_a_takeover(tmp_path: Path) -> None:
    with other_process(tmp_path / "run") as other:
        assert other.ask("write 0") == "done"
        other.process.kill()
        other.process.wait()
        with RunLease(open_run(str(tmp_path / "run")), "caption") as later:
            later.run.write("images", "1", images("1"))
    for name, copy in (("copy", shutil.copy), ("archive", shutil.copy2)):
        shutil.copytree(tmp_path / "run", tmp_path / name, copy_function=copy)
        run = open_run(str(tmp_path / name))
        if name == "copy":  # in any order, and in less time than a time stamp tells
            for file in (tmp_path / name).rglob("*-e00000001.parquet"):
                os.utime(file, (time.time() + 9, time.time() + 9))
        assert sorted(run.read("images")["image_id"].to_pylist()) == ["0", "1"]
        with RunLease(run, "fuse") as held:
            assert sorted(held.run.read("images")["image_id"].to_pylist()) == ["0", "1"]


def test_a_clock_step_does_not_take_over_a_live_job_s_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with other_process(tmp_path / "run") as other:
        boot = psutil.boot_time()
        monkeypatch.setattr("psutil._psplatform.boot_time", lambda: boot + 61)
        with pytest.raises(RunLocked, match="caption"), RunLease(open_run(str(tmp_path / "run")), "fuse"):
            pass
        assert [claim.pid for claim in holders(open_run(str(tmp_path / "run")))] == [other.process.pid]


def test_concurrent_claims_of_an_unused_run_succeed_or_are_refused(tmp_path: Path) -> None:
    run, until = open_run(str(tmp_path / "run")), time.monotonic() + 3

    def claim(_: int) -> list[str]:
        errors: list[str] = []
        while time.monotonic() < until:
            try:
                with RunLease(run, "caption"):
                    pass
            except RunLocked:
                continue
            except Exception as error:
                errors.append(repr(error))
        return errors

    with ThreadPoolExecutor(3) as threads:
        assert [error for errors in threads.map(claim, range(3)) for error in errors] == []


def test_a_process_with_a_reused_pid_is_not_mistaken_for_the_dead_holder(tmp_path: Path) -> None:
    claim_of(tmp_path / "run", machine=machine_id(), pid=os.getpid(), started=1.0)
    with RunLease(open_run(str(tmp_path / "run")), "caption"):
        pass


def test_a_silent_holder_on_another_machine_is_taken_over_when_its_lease_ends(tmp_path: Path) -> None:
    claim_of(tmp_path / "run", lease_s=1.5)
    begun = time.monotonic()
    with RunLease(open_run(str(tmp_path / "run")), "caption"):
        assert 1.5 <= time.monotonic() - begun < 6


def test_a_released_run_is_acquired_immediately(place: Place) -> None:
    with other_process(place.uri, machine="far") as other:
        assert other.ask("write 0") == "done"
        assert other.process.stdin is not None
        other.process.stdin.close()
        assert other.process.wait(20) == 0
    assert holders(place.run()) == []
    begun = time.monotonic()
    with RunLease(place.run(), "fuse") as later:
        assert time.monotonic() - begun < 20
        # Of an epoch that was released all files count, even of the second in which it was.
        assert later.run.read("images")["image_id"].to_pylist() == ["0"]


def test_eight_restarts_in_a_row(place: Place) -> None:
    for number in range(8):
        with RunLease(place.run(), "caption") as held:
            before = held.run.files("images", "0")
            path = held.run.write("images", "0", images("0", b"%d" % number))
            held.run.delete(one for one in before if one != path)
    assert [place.run().stem(path) for path in place.run().files("images")] == ["0"]
    assert place.run().read("images")["image"].to_pylist() == [b"7"]
    assert place.lease() == sorted(f"epoch-{n:08d}.{kind}" for n in range(1, 9) for kind in ("json", "done"))


def test_a_live_holder_renews_its_lease(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLease(place.run(), "caption", lease_s=3.0) as held:
        be_on_machine(monkeypatch, "another machine")
        for _ in range(2):
            with pytest.raises(RunLocked), RunLease(place.run(), "fuse", lease_s=3.0):
                pass
        assert not held.taken_over


def test_a_run_without_a_job_is_written_without_an_epoch(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    with RunLease(run, "caption") as held:
        held.run.write("images", "0-a", images("0"))
    assert run.write("images", "0", images("0")) == run.path("images", "0.parquet")
    assert list(map(run.stem, run.files("images"))) == ["0-a", "0"]
    assert {run.partition(path) for path in run.files("images")} == {"0"}


def test_a_job_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with RunLease(open_run(str(tmp_path / "run")), "caption"):
        assert (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()


def test_a_claim_that_is_damaged_is_waited_for_and_taken_over(tmp_path: Path) -> None:
    claim_of(tmp_path / "run")
    (tmp_path / "run" / "lease" / "epoch-00000001.json").write_text('{"id": ')
    assert holders(open_run(str(tmp_path / "run"))) == []
    begun = time.monotonic()
    with RunLease(open_run(str(tmp_path / "run")), "caption", lease_s=1.2):
        assert 1.2 <= time.monotonic() - begun < 6


def test_a_run_where_nothing_can_be_claimed_is_refused() -> None:
    run = Run(pafs.PyFileSystem(pafs.FSSpecHandler(MemoryFileSystem())), "/run", "memory://run")
    with pytest.raises(RunError, match="cannot create a file only if it is absent: use a directory, s3://"):
        RunLease(run, "caption").__enter__()


# A store that fails.


def test_a_claim_whose_response_is_lost_is_recognised(server: ObjectStore, tmp_path: Path) -> None:
    place = Place(server.uri("shop", tmp_path.name), server)
    for epoch in (1, 2):
        server.fault("late", requests=1, only="PUT")
        with RunLease(place.run(), "caption") as held:
            assert server.heal()["met"] == {"late": 1}
            assert held.run.fence is not None
            assert held.run.fence.epoch == epoch


def test_a_store_outage_longer_than_the_lease_does_not_lose_the_run(
    server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(server.uri("shop", tmp_path.name), server)
    with RunLease(place.run(), "caption", lease_s=3.0) as held:
        held.run.write("images", "0", images("0"))
        server.fault("500", seconds=5)
        begun = time.monotonic()
        held.run.write("images", "1", images("1"))
        assert time.monotonic() - begun > 4
        assert not held.taken_over
        be_on_machine(monkeypatch, "another machine")
        with pytest.raises(RunLocked), RunLease(place.run(), "fuse", lease_s=3.0):
            pass
    assert sorted(place.run().read("images")["image_id"].to_pylist()) == ["0", "1"]


def test_no_job_gets_the_run_from_a_store_that_is_down_or_refuses(server: ObjectStore, tmp_path: Path) -> None:
    place = Place(server.uri("shop", tmp_path.name), server)
    for kind, wanted in (("500", "did not answer"), ("403", "check the credentials")):
        server.fault(kind, only="PUT")
        with pytest.raises(StoreError, match=wanted):
            RunLease(place.run(), "caption", lease_s=3.0).__enter__()
        server.heal()
    assert place.lease() == []
    with pytest.raises(StoreError, match=r"nowhere"):
        RunLease(open_run(server.uri("nowhere", "run")), "caption", lease_s=3.0).__enter__()


@pytest.mark.parametrize(
    ("kind", "wanted"), [("unconditional", "ignores"), ("501", "NotImplemented"), ("400", "InvalidArgument")]
)
def test_a_store_without_conditional_puts_is_refused_at_once(
    server: ObjectStore, tmp_path: Path, kind: str, wanted: str
) -> None:
    place = Place(server.uri("shop", tmp_path.name), server)
    server.fault(kind, only="PUT")
    try:
        with pytest.raises(RunError, match=rf"no conditional puts \(If-None-Match\), which a run needs.*{wanted}"):
            RunLease(place.run(), "caption").__enter__()
        assert server.heal()["met"][kind] <= 2
    finally:
        server.heal()


def test_a_holder_whose_claim_is_another_job_s_has_lost_the_run(place: Place) -> None:
    told = threading.Event()
    with RunLease(place.run(), "caption", lease_s=1.2, on_lost=told.set) as held:
        claim = replace(held._claim, id="of another")
        place.run().put(place.run().path("lease", "epoch-00000001.json"), json.dumps(asdict(claim)).encode())
        assert told.wait(15)
        assert held.taken_over
    assert "epoch-00000001.done" not in place.lease()


@pytest.mark.parametrize("proxy", ["of the environment", "of the store"])
def test_claims_use_the_proxy_settings_of_all_other_requests(
    server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    given: dict[str, Any] = {"endpoint_override": f"127.0.0.1:{server.port}", "scheme": "http", "region": "us-east-1"}
    if proxy == "of the store":  # the server takes requests of a proxy as its own
        given |= {"endpoint_override": "127.0.0.1:1", "proxy_options": f"http://user:p%40ss@127.0.0.1:{server.port}"}
    assert create_if_absent(pafs.S3FileSystem(**given), f"shop/{tmp_path.name}", b"")
    assert tmp_path.name in server.keys("shop")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"region": "cn-north-1"}, "https://s3.cn-north-1.amazonaws.com.cn/shop/x"),
        ({"region": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/shop/x"),
        ({"endpoint_override": "host:9", "force_virtual_addressing": True}, "https://shop.host:9/x"),
    ],
)
def test_claims_are_sent_to_the_address_of_the_bucket(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], wanted: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    keys = {"access_key": "x", "secret_key": "x"}
    store: Any = _obstore_clients.obstore_client(pafs.S3FileSystem(**{"region": "us-east-1"} | keys | given), "shop")
    assert obstore.sign(store, "GET", "x", timedelta(seconds=9)).partition("?")[0] == wanted


def test_keys_in_the_uri_are_used(server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of other keys")
    uri = server.uri("shop", tmp_path.name).replace("s3://", "s3://KEY:SECRET@")
    with RunLease(open_run(uri), "caption") as held:
        assert held.run.fence is not None


@pytest.mark.parametrize("source", ["environment", "profile of ~/.aws", "environment without boto3"])
def test_credentials_are_found_where_arrow_finds_them(
    server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    asked: list[str] = []

    def put(store: Any, *_: Any, **__: Any) -> None:
        if asked:
            raise AlreadyExistsError
        asked.append(_access_key(store))

    monkeypatch.setattr(obstore, "put", put)
    if source.startswith("profile"):
        (tmp_path / "credentials").write_text("[caslie]\naws_access_key_id = OFPROFILE\naws_secret_access_key = x\n")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_PROFILE", "caslie")
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    elif source.endswith("boto3"):
        monkeypatch.setitem(sys.modules, "obstore.auth.boto3", None)
    filesystem, path = open_path(server.uri("shop", tmp_path.name))
    assert create_if_absent(filesystem, f"{path}/x", b"")
    assert asked == ["OFPROFILE" if source.startswith("profile") else "testing"]


def _access_key(store: Any) -> str:
    """The key with which a store signs: it is in every URL that it signs."""
    signed = urlsplit(obstore.sign(store, "GET", "x", timedelta(seconds=9)))
    return parse_qs(signed.query)["X-Amz-Credential"][0].partition("/")[0]
