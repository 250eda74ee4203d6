"""uniM³'s input: samples and verdicts become instructions (paper 4.3).

Three variants of every sample: `caslie` holds the captions that won, `uia` holds every caption, `text` holds
none. A caption stands beside its own product, and one that is not used leaves no trace. The prompt is the
user's turn; wrapping it belongs to the chat template of the model that reads it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.ids import content_id
from caslie_ray.profiles import Profile
from caslie_ray.progress import Progress
from caslie_ray.runs import Run, RunError
from caslie_ray.tables import SCHEMAS
from caslie_ray.tasks import TASKS, Sample

__all__ = ["VARIANTS", "fuse", "instructions_of", "plan_fusion", "sample_of"]

VARIANTS = ("caslie", "uia", "text")


class _Captioned(NamedTuple):
    caption: str | None
    verdict: bool


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Return the sample that a row of `samples` holds; its images are not in the row."""
    return Sample(
        row["task"],
        row["split"],
        row["instruction"],
        tuple((pair["field"], pair["text"]) for pair in row["input"] or ()),
        tuple(row["options"] or ()),
        row["output"],
        (),
        tuple(row["captions"] or ()),
    )


def instructions_of(row: Mapping[str, Any], captions: Mapping[str, _Captioned]) -> Iterator[dict[str, Any]]:
    """Yield the rows of `instructions` of one sample, one a variant.

    Args:
        row: a row of `samples`.
        captions: the caption and the verdict of each view by its id; a view without a usable caption
            counts as not captioned.
    """
    task = TASKS[row["task"]]
    sample = sample_of(row)
    views = [captions.get(view_id) if view_id else None for view_id in row["view_ids"] or ()]
    for variant in VARIANTS:
        used = [
            (view.caption or None) if view and variant != "text" and (variant == "uia" or view.verdict) else None
            for view in views
        ]
        prompt = task.prompt(sample, used)
        yield {
            "sample_id": row["sample_id"],
            "task": row["task"],
            "split": row["split"],
            "variant": variant,
            "prompt": prompt.text,
            "prompt_fields": [list(span) for span in prompt.fields],
            "response": row["output"],
            "options": list(sample.options),
            "captions_used": sum(caption is not None for caption in used),
        }


def fuse(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, Any]:
    """Write `instructions` from `samples` and `captions`; return the job's summary.

    A file of `instructions` that already says what would be written is left alone.

    Raises:
        RunError: samples or captions are missing, or the store refuses.
    """
    files = run.files("samples")
    if not files:
        raise RunError(f"{run.label} has no samples: run ingest first")
    if run.files("views") and not run.files("captions"):
        raise RunError(f"{run.label} has no captions: run caption first")
    captions = _Captions(run)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    listed = {table: run.by_partition(table) for table in ("samples", "instructions")}
    partitions = sorted(listed["samples"])
    written = 0
    uncaptioned = 0
    with Progress("fuse", len(partitions), "files", quiet=quiet) as progress:
        for partition in partitions:
            rows: list[dict[str, Any]] = []
            here = run.knowing({table: found.get(partition, []) for table, found in listed.items()})
            samples = here.read("samples", partition=partition).to_pylist()
            known = captions.of({view for row in samples for view in row["view_ids"] or () if view})
            for row in samples:
                uncaptioned += sum(1 for view in row["view_ids"] or () if view and view not in known)
                for instruction in instructions_of(row, known):
                    rows.append(instruction)
                    counts[instruction["variant"]][row["split"]] += 1
                    counts[instruction["variant"]]["captions"] += instruction["captions_used"]
            written += _write_if_new(here, partition, pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))
            progress.add(1)
    run.delete(path for path in run.files("instructions") if run.partition(path) not in listed["samples"])
    summary = {
        "job": "fuse",
        "run": run.label,
        "profile": profile.name,
        "variants": {name: dict(count) for name, count in counts.items()},
        "views_without_caption_row": uncaptioned,
        "files_written": written,
    }
    run.write_json("summary/fuse.json", summary)
    return summary


def plan_fusion(run: Run) -> list[str]:
    """Say what `fuse` would write.

    Raises:
        RunError: there are no samples, or a file is not whole.
    """
    if not run.files("samples"):
        raise RunError(f"{run.label} has no samples: run ingest first")
    samples = sum(run.count_rows(path) for path in run.files("samples"))
    captions = sum(run.count_rows(path) for path in run.files("captions"))
    return [
        f"samples       {samples:,}",
        f"captions      {captions:,}",
        f"instructions  {samples * len(VARIANTS):,} ({', '.join(VARIANTS)})",
        "models        none",
    ]


class _Captions:
    """The captions of a run, by view id; only ids, texts and verdicts are held."""

    def __init__(self, run: Run) -> None:
        self._table = run.read("captions", ["view_id", "caption", "verdict"])
        ids = self._table["view_id"]
        self._order = pc.sort_indices(ids).to_numpy()
        # Bytes of one width: a search in them costs the same few steps however many there are.
        self._ids = ids.cast(pa.binary()).to_numpy().astype(np.bytes_)[self._order]

    def of(self, view_ids: set[str]) -> dict[str, _Captioned]:
        """Return what is known of some views."""
        wanted = np.array([view_id.encode() for view_id in view_ids], dtype=np.bytes_)
        if not len(self._ids) or not len(wanted):
            return {}
        at = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        found = self._order[at[self._ids[at] == wanted]]
        rows = self._table.take(pa.array(found)).to_pylist()
        return {row["view_id"]: _Captioned(row["caption"], bool(row["verdict"])) for row in rows}


def _write_if_new(run: Run, partition: str, rows: pa.Table) -> bool:
    standing = run.files("instructions", partition)
    if len(standing) == 1 and _digest(run.read("instructions", partition=partition)) == _digest(rows):
        return False
    written = run.write("instructions", partition, rows)
    run.delete(path for path in standing if path != written)
    return True


def _digest(rows: pa.Table) -> str:
    return content_id(repr(rows.to_pylist()))
