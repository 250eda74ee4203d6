"""Which errors of a worker end a training, and which are left to Ray Train's retries."""

from __future__ import annotations

import errno

import pytest

from caslie_ray.engines import EngineError
from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.training import TrainingError
from caslie_ray.training._worker import _final


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (LoadError(LoadFailure("retry", "the hub limits requests (429)", "later")), False),
        (LoadError(LoadFailure("elsewhere", "disk full", "free some")), False),
        (LoadError(LoadFailure("final", "no such revision", "check it")), True),
        (EngineError("checkpoint x lacks 3 weights"), True),
        (TrainingError("the loss is not a number"), True),
        (RuntimeError("connection reset by peer"), False),
    ],
    ids=["hub", "disk", "revision", "weights", "loss", "unknown"],
)
def test_only_what_every_retry_would_meet_again_ends_a_training(error: Exception, final: bool) -> None:
    assert _final(error) is (error if final else None)


def test_a_base_that_a_full_disk_keeps_from_loading_is_loaded_again() -> None:
    wrapped = EngineError("checkpoint x cannot be loaded: OSError")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert _final(wrapped) is None
