"""Parsed rows and the results of their references become the tables, unless the tables hold them already."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from caslie_ray.cluster.partition_map import WorkersLost, map_partitions
from caslie_ray.dataset._cache import Cache
from caslie_ray.dataset._intermediate import FOLDER
from caslie_ray.dataset._ray import RETRIES, TASK_CPUS
from caslie_ray.dataset._resolve import Resolver
from caslie_ray.dataset._shuffle import Group
from caslie_ray.dataset._table_writer import TABLES, Writer, Written, by_partition
from caslie_ray.dataset.summary import counted, readings
from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.monitoring.progress import Progress
from caslie_ray.profiles import Profile
from caslie_ray.storage.partitions import partition_names
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS

__all__ = ["STAMP", "Built", "build_tables"]

STAMP = f"{FOLDER}/tables.json"
"""Names what the tables were built from, and their files."""

_WRITERS = 64


class Built(NamedTuple):
    """The tables of a job.

    Attributes:
        counts: their part of the summary; None if images are missing, and the tables incomplete.
        changed: how many of their files were written.
        missing: the paths of files with ids of missing images.
    """

    counts: dict[str, Any] | None
    changed: int = 0
    missing: tuple[str, ...] = ()


def build_tables(
    run: Run,
    profile: Profile,
    cache: Cache,
    groups: Sequence[Group],
    results: tuple[Sequence[str], str],
    sources: Sequence[tuple[str, str]],
    *,
    quiet: bool,
) -> Built:
    """Build the tables.

    Args:
        run: where they are.
        profile: its parts `ingest` and `storage` count.
        cache: lists the files of the tables.
        groups: the groups of parsed rows.
        results: files with the results of references by group, and a hash of these results.
        sources: the name of each source file and its folder of parsed rows, in order.
        quiet: show no progress.

    Raises:
        RunError: a worker died each time.
    """
    names = partition_names(profile.storage.partition_digits)
    paths, digest = results
    key = content_id(json.dumps([[folder for _, folder in sources], len(names)]), digest)
    existing = cache.table_files()
    stamp = run.read_json(STAMP)
    if isinstance(stamp, dict) and stamp.get("key") == key and stamp.get("files") == _relative(run, existing):
        return Built(dict(stamp["counts"]))
    rows, notes, files = _resolve(run, profile, groups, paths)
    written = _write(run, profile, files, by_partition(names, existing), quiet=quiet)
    if written.missing:
        return Built(None, written.changed, tuple(written.missing))
    by_table: dict[str, dict[str, int]] = {}
    for name in TABLES:
        kept = {path: size for path, size in written.files.items() if path.startswith(run.path(name) + "/")}
        if not kept and name != "products":
            # Readers look for the table even where it has no rows.
            path = run.write(name, names[0], SCHEMAS[name].empty_table())
            kept = {path: run.info([path])[0].size}
        run.delete(set(existing[name]) - set(kept))
        by_table[name] = kept
    counts = counted(rows, written.counts, written.reasons, written.examples)
    counts["read_as"] = readings(notes, [name for name, _ in sources])
    run.write_json(STAMP, {"key": key, "files": _relative(run, by_table), "counts": counts})
    return Built(counts, written.changed)


def _relative(run: Run, files: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return {path[len(run.root) :]: size for name in TABLES for path, size in sorted(files[name].items())}


def _resolve(
    run: Run, profile: Profile, groups: Sequence[Group], results: Sequence[str]
) -> tuple[int, Counter[tuple[int, str]], dict[str, list[str]]]:
    """Sort the parsed rows by partition; return how many they are, how they were read, and the files by kind."""
    rows = 0
    notes: Counter[tuple[int, str]] = Counter()
    files: dict[str, list[str]] = {}
    try:
        for found in map_partitions(
            Resolver(run, results),
            groups,
            distributed=True,
            concurrency=profile.ingest.concurrency,
            num_cpus=TASK_CPUS,
            retries=RETRIES,
        ):
            rows += found.rows
            notes += found.notes
            for kind, path in found.files.items():
                files.setdefault(kind, []).append(path)
    except WorkersLost as error:
        raise RunError(f"{error} while sorting rows: lower ingest.chunk_rows and run again") from None
    return rows, notes, {kind: sorted(paths) for kind, paths in files.items()}


def _write(
    run: Run,
    profile: Profile,
    files: Mapping[str, Sequence[str]],
    parts: Sequence[tuple[str, Mapping[str, Sequence[str]]]],
    *,
    quiet: bool,
) -> Written:
    """Write the partitions."""
    size = -(-len(parts) // _WRITERS)
    jobs = [parts[start : start + size] for start in range(0, len(parts), size)]
    written = Written()
    try:
        with Progress("write", len(parts), "partitions", quiet=quiet) as progress:
            for part in map_partitions(
                Writer(run, files),
                jobs,
                distributed=True,
                concurrency=profile.ingest.concurrency,
                num_cpus=TASK_CPUS,
                retries=RETRIES,
            ):
                written.add(part)
                progress.add(part.partitions)
    except WorkersLost as error:
        raise RunError(
            f"{error} while writing tables: raise storage.partition_digits, so that a partition fits a worker's"
            " memory, and run again"
        ) from None
    return written
