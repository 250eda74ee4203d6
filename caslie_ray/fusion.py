"""uniM³'s input: samples and verdicts become instructions (paper 4.3).

Three variants of every sample: `caslie` holds the captions that won, `uia` holds every caption, `text` holds
none. The variants of experiments are made alike, with the captions that they choose, and kept in a table of their own.
A caption stands beside its own product, and one that is not used leaves no trace. The prompt is the
user's turn; wrapping it belongs to the chat template of the model that reads it.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.captioning import CONTEXT_FREE_FOLDER
from caslie_ray.context_window import MOST_FILES, ContextCheck, describe_fit, evenly
from caslie_ray.errors import RunError, StoreError
from caslie_ray.hashing import content_id
from caslie_ray.monitoring.progress import Progress
from caslie_ray.profiles import Profile
from caslie_ray.prompts import Prompt, one_line, read_spans
from caslie_ray.quality import count
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import TASKS, Sample
from caslie_ray.verdict_bits import VerdictBits

__all__ = [
    "CONTEXT_FREE", "EXPERIMENTS", "SHUFFLED", "VARIANTS", "VERDICT_ONLY", "Captioned", "experiments_of", "fuse",
    "instructions_of", "plan_fusion", "sample_of",
]  # fmt: skip

VARIANTS = ("caslie", "uia", "text")

EXPERIMENTS = "experiments"
"""The table of the variants that experiments make; its rows are like those of `instructions`."""

SHUFFLED, VERDICT_ONLY, CONTEXT_FREE = "shuffled", "verdict-only", "context-free"

MARK = "helpful"
"""Replaces each caption that won in the variant `verdict-only`."""


class Captioned(NamedTuple):
    """A view's caption, its verdict, and the answers of its voters by their names."""

    caption: str | None
    verdict: bool
    answers: Mapping[str, str | None] = {}


Choose = Callable[[str, Captioned], str | None]
"""The text that the prompt has in the place of a view's caption; None where it has none."""

_CHOOSE: Mapping[str, Choose] = {
    "caslie": lambda _, view: view.caption if view.verdict else None,
    "uia": lambda _, view: view.caption,
    "text": lambda _, view: None,
}


def experiments_of(profile: Profile) -> list[str]:
    """Return the variants that a profile's experiments make."""
    tried = profile.experiments
    return [
        *([SHUFFLED] if tried.shuffled else []),
        *([VERDICT_ONLY] if tried.verdict_only else []),
        *([CONTEXT_FREE] if tried.context_free else []),
        *name_sets(tried.voter_sets),
    ]


def name_sets(sets: Sequence[Sequence[str]]) -> list[str]:
    """Return what sets of voters are called: by their number where that tells them apart."""
    sizes = [len(names) for names in sets]
    return [f"voters-{len(names)}" if sizes.count(len(names)) == 1 else f"voters-{'-'.join(names)}" for names in sets]


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


def instructions_of(
    row: Mapping[str, Any], captions: Mapping[str, Captioned], choose: Mapping[str, Choose] = _CHOOSE
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `instructions` of one sample, one a variant.

    Args:
        row: a row of `samples`.
        captions: what is known of each view by its id; a view without a usable caption counts as not captioned.
        choose: how each variant chooses captions, by its name.
    """
    task = TASKS[row["task"]]
    sample = sample_of(row)
    views = [(view_id, captions[view_id]) if view_id in captions else None for view_id in row["view_ids"] or ()]
    for variant, chooses in choose.items():
        used = [(chooses(*view) or None) if view and view[1].caption else None for view in views]
        prompt = task.prompt(sample, used)
        yield {
            "sample_id": row["sample_id"],
            "task": row["task"],
            "split": row["split"],
            "variant": variant,
            "prompt": prompt.text,
            "prompt_fields": [list(span) for span in prompt.fields],
            "response": one_line(row["output"]),
            "options": list(sample.options),
            "captions_used": sum(caption is not None for caption in used),
            "prompt_captions": [list(span) for span in prompt.captions],
            "source_ids": row.get("source_ids"),
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
    sources = _sources(run, profile)
    tables = list(dict.fromkeys(source.table for source in sources))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    listed = {table: run.by_partition(table) for table in ("samples", *tables)}
    partitions = sorted(listed["samples"])
    check = ContextCheck(profile.lineup.base)
    written = 0
    uncaptioned = 0
    bits = VerdictBits()
    with Progress("fuse", len(partitions), "files", quiet=quiet) as progress:
        for partition in partitions:
            rows: dict[str, list[dict[str, Any]]] = {table: [] for table in tables}
            here = run.with_file_listing({table: found.get(partition, []) for table, found in listed.items()})
            samples = here.read("samples", partition=partition).to_pylist()
            ids = {view for row in samples for view in row["view_ids"] or () if view}
            for source in sources:
                known = source.captions.of(ids)
                if source is sources[0]:
                    for row in samples:
                        won = [view in known and bool(known[view].verdict) for view in row["view_ids"] or ()]
                        bits.add(row["task"], row["split"], row["options"] or (), row["output"], won)
                    missing = Counter(view for row in samples for view in row["view_ids"] or () if view)
                    uncaptioned += sum(count for view, count in missing.items() if view not in known)
                for row in samples:
                    rows[source.table] += instructions_of(row, known, source.choose)
            for table, fused in rows.items():
                for instruction in fused:
                    counts[instruction["variant"]][instruction["split"]] += 1
                    counts[instruction["variant"]]["captions"] += instruction["captions_used"]
                    _check_fit(check, instruction)
                written += _write_if_new(here, table, partition, fused)
            progress.add(1)
    for table in tables:
        run.delete(path for path in run.files(table) if run.partition(path) not in listed["samples"])
    summary = {
        "job": "fuse",
        "run": run.label,
        "profile": profile.name,
        "variants": {name: dict(count) for name, count in counts.items()},
        "fit": check.summary(),
        "views_without_caption_row": uncaptioned,
        "verdict_bits": bits.as_dict(),
        "files_written": written,
    }
    run.write_json("summary/fuse.json", summary)
    return summary


def _check_fit(check: ContextCheck, instruction: Mapping[str, Any]) -> None:
    spans = read_spans(instruction["prompt_fields"]), read_spans(instruction["prompt_captions"])
    check.add(instruction["variant"], Prompt(instruction["prompt"], *spans))


class _Source(NamedTuple):
    """Variants that are made of the same captions."""

    table: str
    captions: _Captions
    choose: Mapping[str, Choose]


def _sources(run: Run, profile: Profile) -> list[_Source]:
    captions = _Captions(run, answers=bool(profile.experiments.voter_sets))
    sources = [_Source("instructions", captions, _CHOOSE)]
    chosen: dict[str, Choose] = {}
    if profile.experiments.shuffled:
        drawn = _drawn(run, captions)
        chosen[SHUFFLED] = lambda view_id, view: view.caption if view_id in drawn else None
    if profile.experiments.verdict_only:
        chosen[VERDICT_ONLY] = lambda _, view: MARK if view.verdict else None
    sets = profile.experiments.voter_sets
    for name, voters in zip(name_sets(sets), sets, strict=True):
        chosen[name] = functools.partial(_majority, voters)
    if chosen:
        sources.append(_Source(EXPERIMENTS, captions, chosen))
    if profile.experiments.context_free:
        free = run.below(CONTEXT_FREE_FOLDER)
        if not free.files("captions"):
            raise RunError(f"{run.label} has no captions without context: run caption first, with the same profile")
        sources.append(_Source(EXPERIMENTS, _Captions(free), {CONTEXT_FREE: _CHOOSE["caslie"]}))
    return sources


def _majority(voters: Sequence[str], _: str, view: Captioned) -> str | None:
    lacking = [name for name in voters if name not in view.answers]
    if view.answers and lacking:
        raise RunError(
            f"{', '.join(lacking)} did not vote on every view, as experiments.voter_sets wants: run caption with the"
            " same profile and votes.schedule=full"
        )
    return view.caption if count([view.answers.get(name) for name in voters], len(voters)).verdict else None


def _drawn(run: Run, captions: _Captions) -> set[str]:
    """As many captioned views of each task and split as have a verdict of yes, chosen by their ids."""
    places: dict[str, tuple[str, str]] = {}
    for row in run.read("samples", ["sample_id", "task", "split", "view_ids"]).sort_by("sample_id").to_pylist():
        for view_id in row["view_ids"] or ():
            if view_id:  # one of several splits counts once, for the first
                places.setdefault(view_id, (row["task"], row["split"]))
    known = captions.of(set(places))
    by_place: dict[tuple[str, str], list[str]] = defaultdict(list)
    used: Counter[tuple[str, str]] = Counter()
    for view_id, place in places.items():
        view = known.get(view_id)
        if view is not None and view.caption:
            by_place[place].append(view_id)
            used[place] += view.verdict
    drawn: set[str] = set()
    for place, ids in by_place.items():
        drawn.update(sorted(ids, key=lambda view_id: content_id(SHUFFLED, view_id))[: used[place]])
    return drawn


def plan_fusion(run: Run, profile: Profile) -> list[str]:
    """Say what `fuse` would write, and whether it fits the base's context once there are captions.

    Raises:
        RunError: there are no samples, or a file is not whole.
    """
    if not run.files("samples"):
        raise RunError(f"{run.label} has no samples: run ingest first")
    samples = sum(run.count_rows(path) for path in run.files("samples"))
    captions = sum(run.count_rows(path) for path in run.files("captions"))
    fit = [f"fit           {_plan_fit(run, profile, samples)}"] if captions else []
    return [
        f"samples       {samples:,}",
        f"captions      {captions:,}",
        f"instructions  {samples * len(VARIANTS):,} ({', '.join(VARIANTS)})",
        *fit,
        "models        none",
    ]


def _plan_fit(run: Run, profile: Profile, total: int) -> str:
    """Say whether the instructions of `total` samples fit, from no more than `MOST_FILES` partitions of them."""
    check = ContextCheck(profile.lineup.base)
    captions = _Captions(run)
    listed = run.by_partition("samples")
    chosen = evenly(sorted(listed), MOST_FILES)
    read = 0
    for partition in chosen:
        samples = run.with_file_listing({"samples": listed[partition]}).read("samples", partition=partition).to_pylist()
        read += len(samples)
        known = captions.of({view for row in samples for view in row["view_ids"] or () if view})
        for row in samples:
            for instruction in instructions_of(row, known):
                _check_fit(check, instruction)
    if len(chosen) == len(listed) or not read:
        return describe_fit(check.summary())
    part = f" ({len(chosen)} of {len(listed):,} partitions were read)"
    return describe_fit(check.summary(total / read), estimated=True) + part


class _Captions:
    """The captions of a run, by view id; only ids, texts, verdicts and, where they are asked for, answers are held."""

    def __init__(self, run: Run, *, answers: bool = False) -> None:
        self._table = run.read("captions", ["view_id", "caption", "verdict", *(["votes"] if answers else [])])
        ids = self._table["view_id"]
        self._order = pc.sort_indices(ids).to_numpy()
        # Bytes of one width: a search in them costs the same few steps however many there are.
        self._ids = ids.cast(pa.binary()).to_numpy().astype(np.bytes_)[self._order]

    def of(self, view_ids: set[str]) -> dict[str, Captioned]:
        """Return what is known of some views."""
        wanted = np.array([view_id.encode() for view_id in view_ids], dtype=np.bytes_)
        if not len(self._ids) or not len(wanted):
            return {}
        at = np.minimum(np.searchsorted(self._ids, wanted), len(self._ids) - 1)
        found = self._order[at[self._ids[at] == wanted]]
        rows = self._table.take(pa.array(found)).to_pylist()
        return {
            row["view_id"]: Captioned(
                row["caption"],
                bool(row["verdict"]),
                {vote["voter"]: vote["answer"] for vote in row.get("votes") or ()},
            )
            for row in rows
        }


def _write_if_new(run: Run, table: str, partition: str, rows: Sequence[dict[str, Any]]) -> bool:
    fused = pa.Table.from_pylist(list(rows), schema=SCHEMAS[table])
    standing = run.files(table, partition)
    if len(standing) == 1 and _standing_digest(run, table, partition) == _digest(fused):
        return False
    written = run.write(table, partition, fused)
    run.delete(path for path in standing if path != written)
    return True


def _standing_digest(run: Run, table: str, partition: str) -> str | None:
    """The digest of what a partition holds; None where it is damaged, since all of it is written anew."""
    try:
        return _digest(run.read(table, partition=partition))
    except StoreError:
        raise
    except RunError:
        return None


def _digest(rows: pa.Table) -> str:
    return content_id(repr(rows.to_pylist()))
