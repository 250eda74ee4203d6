"""Exceptions that more than one package raises or catches. Each message names what failed, where, and how to fix it."""

from __future__ import annotations

__all__ = [
    "DamagedFile",
    "EngineError",
    "JobError",
    "ModelUnavailable",
    "NoAnswer",
    "PoolDown",
    "RunError",
    "RunLocked",
    "RunLost",
    "SourceError",
    "StoreError",
]


class RunError(RuntimeError):
    """A file of a run cannot be read or written; the message names the file and the fix."""


class StoreError(RunError):
    """A store does not answer or refuses a request. Says nothing about whether the file is intact."""


class NoAnswer(StoreError):
    """A store did not answer until the retries were used up; a later run may succeed."""


class RunLost(StoreError):
    """Another job has taken over the run; this one must not write to it any more."""


class RunLocked(RunError):
    """Another job holds the lease of the run; the message names it."""


class DamagedFile(RunError):
    """A file of a run is damaged; the job that wrote it can replace it. `path` is its path on the run's store."""

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[str, str]]:
        return DamagedFile, (str(self), self.path)


class SourceError(ValueError):
    """A source does not exist or cannot be listed; the message names it and the fix."""


class EngineError(RuntimeError):
    """An engine cannot work: its checkpoint cannot be loaded or run, or the device is lost."""


class ModelUnavailable(EngineError):
    """A served model does not answer now: it is down, or took too long; the message names it and the cause."""


class PoolDown(EngineError):
    """A model cannot be started, or its replicas keep dying; the message names it and the cause."""


class JobError(RuntimeError):
    """A job cannot continue; the message says why and how to fix it."""
