"""Errors of loading: which are final, which are worth a retry, and which are the node's."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable

import httpx2
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils._http import hf_raise_for_status

from caslie_ray.engines import CheckpointError
from caslie_ray.engines.load_errors import Kind, LoadError, LoadFailure, classify
from caslie_ray.errors import EngineError

FREE = (
    "checkpoint org/m cannot be loaded on vLLM: ValueError: Free memory on device cuda:0 (10.1/79.2 GiB) on startup is"
    " less than desired GPU memory utilization (0.45, 35.6 GiB). Decrease GPU memory utilization or reduce GPU memory"
    " used by other processes."
)


def answer(status: int, code: str = "") -> HfHubHTTPError:
    """The error that the hub's client makes of an answer."""
    request = httpx2.Request("GET", "https://huggingface.co/api/models/org/m/revision/main")
    response = httpx2.Response(status, headers={"X-Error-Code": code} if code else {}, request=request, json={})
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(response)
    return caught.value


def wrapped(inner: BaseException, *outer: BaseException) -> BaseException:
    """An error raised from another, as loaders do."""
    for one in outer:
        one.__cause__ = inner
        inner = one
    return inner


@pytest.mark.parametrize(
    ("make", "kind", "mend"),
    [
        (lambda: answer(403, "GatedRepo"), "final", "accept its licence"),
        (lambda: answer(404, "RepoNotFound"), "final", "check `checkpoint`"),
        (lambda: answer(404, "RevisionNotFound"), "final", "set `revision`"),
        (lambda: answer(401), "final", "HF_TOKEN"),
        (lambda: answer(403), "final", "HF_TOKEN"),
        (lambda: answer(429), "retry", "later"),
        (lambda: answer(503), "retry", "later"),
        (lambda: httpx2.ReadTimeout("no answer"), "retry", "later"),
        (lambda: httpx2.ConnectError("refused"), "retry", "later"),
        (lambda: ConnectionResetError("reset"), "retry", "later"),
        (lambda: OfflineModeIsEnabled("offline"), "elsewhere", "HF_HUB_OFFLINE=0"),
        (lambda: OSError(errno.ENOSPC, "No space left on device"), "elsewhere", "disk"),
        (lambda: OSError(errno.EACCES, "Permission denied"), "elsewhere", "writable"),
        (lambda: OSError(errno.EROFS, "Read-only file system"), "elsewhere", "writable"),
        (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "retry", "memory"),
        (lambda: torch.OutOfMemoryError("CUDA out of memory"), "retry", "alone.gpus, alone.batch_tokens"),
        (lambda: CheckpointError("no miniature checkpoint 'x'"), "final", ""),
        (lambda: ModuleNotFoundError("No module named 'vllm'"), "elsewhere", "packages"),
    ],
)
def test_types_decide(make: Callable[[], BaseException], kind: Kind, mend: str) -> None:
    failure = classify(make())
    assert failure.kind == kind
    assert mend in failure.mend
    assert "\n" not in failure.reason
    # transformers raises its own OSError from it, and the engine its own error from that.
    outer = EngineError("checkpoint org/m cannot be loaded")
    assert classify(wrapped(make(), OSError("some text"), outer)) == LoadFailure(kind, str(outer), failure.mend)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (FREE, "retry"),
        ("the vLLM engine of org/m died: OutOfMemoryError: CUDA out of memory. Tried to allocate 1.0 GiB", "retry"),
        ("died: RuntimeError: CUDA error: out of memory", "retry"),
        ("died: RuntimeError: CUDA error: an illegal memory access was encountered", "elsewhere"),
        ("died: RuntimeError: No CUDA GPUs are available", "elsewhere"),
        ("device 'cuda' is not there; CUDA GPUs here: 0", "elsewhere"),
        ("died: RuntimeError: Failed to infer device type, please set VLLM_LOGGING_LEVEL=DEBUG", "elsewhere"),
        ("cannot be loaded: OSError: [Errno 28] No space left on device: 'model.safetensors'", "elsewhere"),
        ("died: ValueError: No available memory for the cache blocks. Try increasing", "final"),
        ("(4.0 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB)", "final"),
        ("died: GatedRepoError: 403 Client Error.", "final"),
        ("died: HfHubHTTPError: 429 Too Many Requests for url: https://hub/x", "retry"),
        ("died: HfHubHTTPError: Server error '503 Service Unavailable' for url 'https://hub/x'", "retry"),
        ("checkpoint org/m has no chat template: its prompts cannot be written", "final"),
        ("While loading /a, expected target modules in {'k_proj'} but received ['lm_head']", "final"),
        ("cannot run on vLLM: vLLM 0.29.0 has no MllamaForConditionalGeneration", "final"),
    ],
)
def test_text_decides_where_types_are_lost(text: str, kind: Kind) -> None:
    assert classify(EngineError(text)).kind == kind
    assert classify(wrapped(RuntimeError("Engine core initialization failed."), EngineError(text))).kind == kind


def test_an_unknown_failure_is_retried() -> None:
    assert classify(RuntimeError("something new")) == LoadFailure("retry", "RuntimeError: something new", "")
    assert classify(wrapped(KeyError("x"), ValueError("y"))).kind == "retry"
    assert classify(wrapped(KeyError("x"), EngineError("the model cannot be loaded: KeyError: x"))).kind == "retry"


def test_what_the_engine_itself_found_is_final() -> None:
    assert classify(EngineError("checkpoint a lacks 1 weights, the first is b")).kind == "final"
    assert classify(wrapped(ValueError("no JSON"), CheckpointError("checkpoint a cannot be read"))).kind == "final"


def test_a_missing_local_entry_is_classified_by_its_cause() -> None:
    assert classify(wrapped(answer(500), LocalEntryNotFoundError("cannot find it"))).kind == "retry"
    assert classify(wrapped(OfflineModeIsEnabled("offline"), LocalEntryNotFoundError("x"))).kind == "elsewhere"


def test_a_load_error_survives_pickling() -> None:
    failure = LoadFailure("elsewhere", "the disk is full", "free some")
    copy = pickle.loads(pickle.dumps(LoadError(failure)))
    assert (type(copy), copy.failure, str(copy)) == (LoadError, failure, "the disk is full (free some)")
    assert classify(wrapped(copy, RuntimeError("outer"))) == failure
