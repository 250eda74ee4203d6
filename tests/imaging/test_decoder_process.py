"""The decoder process dies, hangs, and answers nonsense: each costs one image, and none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import psutil
import pytest

from caslie_ray.dataset._decoding import decode
from caslie_ray.imaging.decoder_process import DecoderProcess
from caslie_ray.imaging.limits import DecodeLimits
from caslie_ray.imaging.storing import ImageError, StoredImage
from caslie_ray.profiles import ImageSettings
from tests.dataset.world import opened, png
from tests.hostile.images import jpeg_with_scans

LIMITS = DecodeLimits(max_side=500, max_pixels=50_000_000, max_memory=10**9, max_scans=1000, decode_timeout_s=30.0)


@pytest.fixture
def decoder() -> Iterator[DecoderProcess]:
    made = DecoderProcess()
    yield made
    made.close()


def slow() -> bytes:
    """An image that takes many seconds."""
    return jpeg_with_scans(900)


def works(decoder: DecoderProcess, seed: int = 0) -> bool:
    return decoder.decode(png(seed), LIMITS) == StoredImage(png(seed), 40, 30)


def send_while_decoding(decoder: DecoderProcess, number: int) -> Timer:
    """Send a signal once the process is there and decoding."""

    def send() -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            pid = decoder.pid
            if pid is not None and psutil.Process(pid).cpu_times().user > 0.5:
                os.kill(pid, number)
                return
            time.sleep(0.05)

    timer = Timer(0, send)
    timer.start()
    return timer


def test_one_process_decodes_many_images(decoder: DecoderProcess) -> None:
    assert works(decoder)
    pid = decoder.pid
    assert all(works(decoder, seed) for seed in range(10))
    assert decoder.pid == pid


@pytest.mark.parametrize(
    ("number", "reason", "retryable"),
    [(signal.SIGSEGV, "crashed the decoder (SIGSEGV)", False), (signal.SIGKILL, "decoder killed", True)],
)
def test_a_crash_loses_only_one_image(decoder: DecoderProcess, number: int, reason: str, retryable: bool) -> None:
    timer = send_while_decoding(decoder, number)
    with pytest.raises(ImageError) as caught:
        decoder.decode(slow(), LIMITS)
    timer.join()
    assert reason in caught.value.reason
    assert caught.value.retryable == retryable
    assert decoder.pid is None
    assert works(decoder)


def test_an_image_is_not_blamed_for_the_death_of_a_process_that_others_used(decoder: DecoderProcess) -> None:
    assert works(decoder)
    pid = decoder.pid
    assert pid is not None
    os.kill(pid, signal.SIGSEGV)
    assert works(decoder)
    assert decoder.pid != pid
    assert not psutil.pid_exists(pid)


def test_cpu_time_is_limited(decoder: DecoderProcess) -> None:
    assert works(decoder)
    begun = time.monotonic()
    with pytest.raises(ImageError, match=r"too slow: .* images.decode_timeout_s 0.5 s") as caught:
        decoder.decode(slow(), LIMITS._replace(decode_timeout_s=0.5))
    assert time.monotonic() - begun < 10
    assert not caught.value.retryable
    assert works(decoder)


def test_the_limit_is_for_one_image(decoder: DecoderProcess) -> None:
    limits = LIMITS._replace(decode_timeout_s=0.2)
    large = png(size=(900, 900))
    begun = time.monotonic()
    assert works(decoder)
    pid = decoder.pid
    assert pid is not None
    while psutil.Process(pid).cpu_times().user < 0.6 and time.monotonic() - begun < 60:
        decoder.decode(large, limits)
    assert decoder.pid == pid


def test_a_stopped_process_is_ended() -> None:
    decoder = DecoderProcess(slack_s=1.0)
    assert works(decoder)
    pid = decoder.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    # More than fits into the socket's buffer.
    with pytest.raises(ImageError, match="no answer") as caught:
        decoder.decode(png() + bytes(5_000_000), LIMITS._replace(decode_timeout_s=0.1))
    assert caught.value.retryable
    assert not psutil.pid_exists(pid)
    assert works(decoder)
    decoder.close()


def test_memory_is_limited_also_where_the_header_is_wrong() -> None:
    """The address space of the process is limited; here its estimate says 0."""
    script = (
        "import caslie_ray.imaging.storing as storing; storing.decoding_memory = lambda *rest: 0;"
        "from caslie_ray.imaging._worker import serve; serve()"
    )
    decoder = DecoderProcess([sys.executable, "-P", "-c", script])
    with pytest.raises(ImageError, match=r"too much memory: .*images.max_memory 50,000,000") as caught:
        decoder.decode(png(size=(5000, 5000)), LIMITS._replace(max_memory=50_000_000))
    assert not caught.value.retryable
    assert works(decoder)
    decoder.close()


@pytest.mark.parametrize(
    "answer",
    [
        "ANSWER.pack(2, False, 40, 30, 4) + b'GIF8'",
        "ANSWER.pack(2, False, 40, 30, 1 << 40)",
        "ANSWER.pack(2, False, 501, 30, 3) + b'\\xff\\xd8\\xff'",
        "ANSWER.pack(2, False, 0, 30, 3) + b'\\xff\\xd8\\xff'",
        "ANSWER.pack(9, False, 40, 30, 3) + b'\\xff\\xd8\\xff'",
    ],
)
def test_an_answer_that_is_no_image_is_not_taken(answer: str) -> None:
    script = (
        "import os, time; from caslie_ray.imaging._messages import ANSWER;"
        f"os.write(0, ANSWER.pack(0, False, 0, 0, 0)); os.read(0, 10); os.write(0, {answer}); time.sleep(60)"
    )
    decoder = DecoderProcess([sys.executable, "-P", "-c", script])
    with pytest.raises(ImageError, match="damaged decoder"):
        decoder.decode(png(), LIMITS)
    assert decoder.pid is None


def test_a_process_that_cannot_start_is_tried_again_by_a_later_run() -> None:
    decoder = DecoderProcess([sys.executable, "-c", "raise SystemExit(7)"])
    with pytest.raises(ImageError, match=r"no decoder: .*exit code 7") as caught:
        decoder.decode(png(), LIMITS)
    assert caught.value.retryable


def test_the_process_has_no_secrets_and_may_open_no_files(
    decoder: DecoderProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    assert works(decoder)
    process = psutil.Process(decoder.pid)
    assert "AWS_SECRET_ACCESS_KEY" not in process.environ()
    for limit in (psutil.RLIMIT_NOFILE, psutil.RLIMIT_FSIZE, psutil.RLIMIT_CORE):
        assert process.rlimit(limit) == (0, 0)
    modules = {one.path for one in process.memory_maps()}
    assert not any("ray/" in path or "pyarrow" in path or "torch" in path for path in modules)


def test_threads_share_a_process(decoder: DecoderProcess) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(works, [decoder] * 40, range(40)))


PARENT = """
import sys, threading, time
from caslie_ray.dataset._decoding import decoder, decode
from caslie_ray.imaging.storing import ImageError
from caslie_ray.profiles import ImageSettings
from tests.dataset.world import png
from tests.hostile.images import jpeg_with_scans
decode(png(), ImageSettings())
print(decoder().pid, flush=True)
if sys.argv[1] == "busy":
    decode(jpeg_with_scans(900), ImageSettings(max_scans=1000, decode_timeout_s=3.0))
elif sys.argv[1] == "idle":
    time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "busy", "ends"])
def test_the_process_ends_with_its_parent(state: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    if state == "busy":
        time.sleep(1)
    if state != "ends":
        parent.kill()
    parent.wait(30)
    parent.stdout.close()
    child.wait(30)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_fork_gets_a_process_of_its_own() -> None:
    assert decode(png(), ImageSettings()).width == 40
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(writing, decode(png(1, (600, 40)), ImageSettings()).data)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert opened(pipe.read()).width == 500
    assert os.waitpid(pid, 0)[1] == 0
    assert decode(png(2), ImageSettings()).width == 40
