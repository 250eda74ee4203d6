"""Counts over rows of `captions`, by partition."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.run import Run

__all__ = ["Counts", "count_partition", "count_rows", "kind_of_error", "merge_counts"]

_ID = re.compile(r"\b[0-9a-f]{12,}\b")
# A separate number; digits within a model's name do not match.
_NUMBER = re.compile(r"(?<![\w.-])\d[\d.,]*(?![\w-])")


@dataclass
class Counts:
    """Counts over rows of `captions`; counts of several partitions can be added.

    Attributes:
        views: views by task.
        used: views whose verdict is yes, by task.
        errors: error rows by kind.
        asked: votes by voter, failed ones included.
        failed: failed votes by voter.
        audited_yes: yes votes by voter, over views on which all vote.
        audited: votes by voter, over the same views.
        full: views on which all vote, by (yes votes, no votes).
        totals: other counts, by name.
    """

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
        """Return the counts in JSON form: [key, count] pairs per counter."""
        return {name: [[key, count] for key, count in counter.items()] for name, counter in vars(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[Sequence[Any]]]) -> Counts:
        """Return counts from the form of `as_json`."""
        counts = cls()
        for name, pairs in value.items():
            getattr(counts, name).update({tuple(key) if isinstance(key, list) else key: n for key, n in pairs})
        return counts


def count_partition(run: Run, partition: str, lineup: ResolvedLineup) -> Counts:
    """Count the rows of a partition."""
    views = run.read("views", ["view_id", "task"], partition)
    task_of = dict(zip(views["view_id"].to_pylist(), views["task"].to_pylist(), strict=True))
    return count_rows(task_of, run.read("captions", partition=partition).to_pylist(), lineup)


def count_rows(task_of: Mapping[str, str], rows: Iterable[Mapping[str, Any]], lineup: ResolvedLineup) -> Counts:
    """Count rows of `captions`.

    Args:
        task_of: the task of each view of the partition, by view id.
        rows: its rows, at most one per view.
        lineup: the models and the voting rule.
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


def merge_counts(parts: Iterable[Counts]) -> Counts:
    """Add up the counts of partitions."""
    total = Counts()
    for part in parts:
        for name in vars(total):
            getattr(total, name).update(getattr(part, name))
    return total


def kind_of_error(error: str) -> str:
    """Return an error text without ids and numbers, so that equal errors of different rows are counted together."""
    head = error.split("(", 1)[0].strip()
    return _NUMBER.sub("#", _ID.sub("…", head))[:120]
