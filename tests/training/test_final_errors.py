"""Which errors of a worker end a training, and which are left to Ray Train's retries."""

from __future__ import annotations

import errno

import pytest
import torch

from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.errors import EngineError, RunLost
from caslie_ray.tasks import UnknownTask
from caslie_ray.training import TrainingError, _final_errors
from caslie_ray.training._final_errors import final_error, others_hold_memory

GIB = 2**30


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (LoadError(LoadFailure("retry", "the hub limits requests (429)", "later")), False),
        (LoadError(LoadFailure("elsewhere", "disk full", "free some")), False),
        (LoadError(LoadFailure("final", "no such revision", "check it")), True),
        (EngineError("checkpoint x lacks 3 weights"), True),
        (TrainingError("the loss is not a number"), True),
        (UnknownTask("the run holds rows of the task 'x'"), True),
        (RunLost("another job has taken over the run"), True),
        (RuntimeError("connection reset by peer"), False),
    ],
    ids=["hub", "disk", "revision", "weights", "loss", "task", "lost", "unknown"],
)
def test_only_what_every_retry_would_meet_again_ends_a_training(error: Exception, final: bool) -> None:
    assert final_error(error) is (error if final else None)


def test_a_base_that_a_full_disk_keeps_from_loading_is_loaded_again() -> None:
    wrapped = EngineError("checkpoint x cannot be loaded: OSError")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert final_error(wrapped) is None


def no_memory() -> EngineError:
    wrapped = EngineError("checkpoint x cannot be loaded: OutOfMemoryError")
    wrapped.__cause__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return wrapped


@pytest.mark.parametrize(("shared", "final"), [(True, False), (False, True)], ids=["shared", "alone"])
def test_out_of_memory_is_final_only_on_a_gpu_that_no_other_process_uses(
    monkeypatch: pytest.MonkeyPatch, shared: bool, final: bool
) -> None:
    monkeypatch.setattr(_final_errors, "gpu_is_shared", lambda: shared)
    assert isinstance(final_error(no_memory()), TrainingError) is final
    # Outside of loading the base, a restarted worker would run out of memory too.
    assert isinstance(final_error(torch.OutOfMemoryError("CUDA out of memory")), TrainingError)


def test_without_a_gpu_out_of_memory_is_final() -> None:
    assert isinstance(final_error(no_memory()), TrainingError)


@pytest.mark.parametrize(
    ("free", "reserved", "total", "others"),
    [
        (10, 69, 80, False),  # 1 GiB is this process's CUDA context
        (10, 40, 80, True),
        (3, 0, 80, True),
        (78, 0, 80, False),
        (77.9, 0, 80, True),
    ],
)
def test_memory_used_by_other_processes(free: float, reserved: float, total: float, others: bool) -> None:
    assert others_hold_memory(int(free * GIB), int(reserved * GIB), int(total * GIB)) is others
