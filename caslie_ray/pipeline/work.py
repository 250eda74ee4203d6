"""What a chain does: the interface between the engine room and the jobs that use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from caslie_ray.engines import Choice, Generation, Request
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run

__all__ = ["Ask", "Work"]


class Ask(Protocol):
    """Asks a loaded model."""

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        """Return one text per request, in order."""
        ...

    def choose(self, role: Role, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return one choice per request, in order."""
        ...


class Work(Protocol):
    """What is done for every partition; a frozen dataclass, pickled to every stage.

    Attributes:
        run: where it is read and written.
        absent: why a model cannot answer, by the role's name.
    """

    @property
    def run(self) -> Run: ...

    @property
    def absent(self) -> Mapping[str, str]: ...

    def read(self, partition: str) -> Iterator[pa.Table]:
        """Yield what is missing, in blocks; the same blocks if it is called again with the same files."""
        ...

    def answer(self, block: pa.Table, names: Sequence[str], ask: Ask) -> pa.Table:
        """Ask the roles that a stage plays; their answers are on disk when this returns."""
        ...

    def write(self, block: pa.Table) -> dict[str, Any]:
        """Write the finished rows of a block; return the counts of `ProgressMonitor.add`.

        With `partition`, the name of the block's partition, the driver gets that too.
        """
        ...
