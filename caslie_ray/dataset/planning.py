"""What an `ingest` would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caslie_ray.dataset._fetch import Ledger, plan
from caslie_ray.dataset._held import Held
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset.columns import Columns
from caslie_ray.dataset.reading import find_sources, read_source
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS, Task

__all__ = ["IngestPlan", "plan_ingest"]


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What is to be done.

    Attributes:
        files: source files.
        unread: those of them that must be read.
        rows: rows of all of them.
        unread_rows: rows that must be read.
        references: distinct references of the rows that were read before.
        to_fetch: those of them that must be fetched, failures that may pass among them. No file is looked at: one that
            was fetched counts as unchanged.
    """

    files: int
    unread: int
    rows: int
    unread_rows: int
    references: int
    to_fetch: int

    def lines(self) -> list[str]:
        """Return the plan as a person reads it."""
        lines = [
            f"files        {self.files:,}",
            f"rows         {self.rows:,}",
            f"to read      {self.unread_rows:,} rows in {self.unread:,} files",
            f"references   {self.references:,} distinct in the rows read before",
            f"to fetch     {self.to_fetch:,} of them",
        ]
        if self.unread:
            lines.append("the references of unread rows are counted once they are read")
        elif not self.to_fetch:
            lines.append("nothing to read or fetch")
        return lines


def plan_ingest(
    run: Run, sources: Sequence[str], profile: Profile, *, tasks: Mapping[str, Task] | None = None
) -> IngestPlan:
    """Survey sources and what a run holds of them; the run is not changed.

    Raises:
        SourceError: a source is not there.
    """
    files, _ = find_sources(sources, run)
    ledger = Ledger(run, profile.images)
    held = Held(run, profile, TASKS if tasks is None else tasks)
    columns = Columns.of(profile.ingest.keys)
    rows = unread = unread_rows = 0
    locators: set[str] = set()
    for file in files:
        folder = held.folder(file)
        known = held.rows(folder, ledger)
        if known is None:
            known = sum(1 for _ in read_source(file, columns, profile.ingest.encoding, Limits.of(profile.ingest)))
            unread, unread_rows = unread + 1, unread_rows + known
        else:
            locators |= held.locators(folder)
        rows += known
    planned = plan(locators, ledger)
    to_fetch = len(planned.wanted) + len(set(planned.files) - ledger.files_without_change())
    return IngestPlan(len(files), unread, rows, unread_rows, len(locators), to_fetch)
