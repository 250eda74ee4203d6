"""What a caption job says at its end, counted from the tables."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caslie_ray.quality import fleiss_kappa
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.run import Run

__all__ = ["Counts", "count_partition", "count_rows", "describe", "kind_of_error", "merge"]

_ID = re.compile(r"\b[0-9a-f]{12,}\b")
# A number of its own; the digits of a model's name stay.
_NUMBER = re.compile(r"(?<![\w.-])\d[\d.,]*(?![\w-])")


@dataclass
class Counts:
    """Counts over rows of `captions`; those of several partitions add up."""

    views: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    audited_yes: Counter[str] = field(default_factory=Counter)
    audited: Counter[str] = field(default_factory=Counter)
    full: Counter[tuple[int, int]] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, list[list[Any]]]:
        """Return the counts as JSON has them: pairs of what is counted and its number."""
        return {name: [[key, count] for key, count in counter.items()] for name, counter in vars(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[Sequence[Any]]]) -> Counts:
        """Return the counts that `as_json` made."""
        counts = cls()
        for name, pairs in value.items():
            getattr(counts, name).update({tuple(key) if isinstance(key, list) else key: n for key, n in pairs})
        return counts


def count_partition(run: Run, partition: str, lineup: ResolvedLineup) -> Counts:
    """Count one partition, row by row."""
    views = run.read("views", ["view_id", "task"], partition)
    task_of = dict(zip(views["view_id"].to_pylist(), views["task"].to_pylist(), strict=True))
    return count_rows(task_of, run.read("captions", partition=partition).to_pylist(), lineup)


def count_rows(task_of: Mapping[str, str], rows: Iterable[Mapping[str, Any]], lineup: ResolvedLineup) -> Counts:
    """Count rows of `captions`.

    Args:
        task_of: the task of each view of the partition, by its id.
        rows: its rows, each view once at most.
        lineup: who votes.
    """
    counts = Counts()
    voters = len(lineup.voters)
    for row in rows:
        task = task_of.get(row["view_id"])
        if task is None:
            counts.totals["orphans"] += 1
            continue
        votes = row["votes"] or []
        counts.views[task] += 1
        counts.used[task] += bool(row["verdict"])
        counts.totals["retryable"] += bool(row["retryable"])
        counts.totals["cut"] += bool(row["cut"])
        counts.totals["captions_truncated"] += bool(row["caption_truncated"])
        counts.totals["calls"] += row["calls"]
        counts.totals["tokens"] += (row["caption_tokens"] or 0) + sum(vote["tokens"] or 0 for vote in votes)
        if row["error"] is not None:
            counts.errors[kind_of_error(row["error"])] += 1
        if row["caption"] is not None:
            counts.totals["calls_saved"] += max(0, voters - len(votes))
        for vote in votes:
            counts.asked[vote["voter"]] += 1
            counts.failed[vote["voter"]] += vote["answer"] is None
        answers = [vote["answer"] for vote in votes]
        if voters and len(votes) == voters and None not in answers and lineup.asks_all(row["view_id"]):
            counts.full[(answers.count("yes"), answers.count("no"))] += 1
            for vote in votes:
                counts.audited[vote["voter"]] += 1
                counts.audited_yes[vote["voter"]] += vote["answer"] == "yes"
    counts.totals["missing"] = len(task_of) - sum(counts.views.values())
    return counts


def merge(parts: Iterable[Counts]) -> Counts:
    """Add up the counts of partitions."""
    total = Counts()
    for part in parts:
        for name in vars(total):
            getattr(total, name).update(getattr(part, name))
    return total


def describe(counts: Counts) -> dict[str, Any]:
    """Return the counts as the summary has them; shares are between 0 and 1."""
    by_task: dict[str, dict[str, float]] = defaultdict(dict)
    for task, views in sorted(counts.views.items()):
        by_task[task] = {"views": views, "used": counts.used[task], "used_share": counts.used[task] / views}
    views = sum(counts.views.values())
    return {
        "views": views,
        "captions_used": {
            "share": sum(counts.used.values()) / views if views else 0.0,
            "by_task": dict(by_task),
        },
        "voters": {
            name: {
                "asked": asked,
                "failed": counts.failed[name],
                "yes_rate": counts.audited_yes[name] / counts.audited[name] if counts.audited[name] else None,
            }
            for name, asked in counts.asked.items()
        },
        "all_voted": sum(counts.full.values()),
        "fleiss_kappa": fleiss_kappa(list(counts.full.elements())),
        "calls": counts.totals["calls"],
        "calls_saved_by_early_exit": counts.totals["calls_saved"],
        "tokens": counts.totals["tokens"],
        "prompts_cut": counts.totals["cut"],
        "captions_truncated": counts.totals["captions_truncated"],
        "errors": dict(counts.errors.most_common()),
        "to_be_asked_again": counts.totals["retryable"],
    }


def kind_of_error(error: str) -> str:
    """Return an error without what differs from row to row, so that a summary stays short."""
    head = error.split("(", 1)[0].strip()
    return _NUMBER.sub("#", _ID.sub("…", head))[:120]
