"""Looking up files behind references, in Ray tasks: the driver opens nothing that a row names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from caslie_ray.cluster.partition_map import WorkersLost, map_partitions
from caslie_ray.dataset._ray import RETRIES, TASK_CPUS
from caslie_ray.dataset.decoding import ImageError
from caslie_ray.dataset.files import Files, store_of
from caslie_ray.dataset.roots import Root

__all__ = ["look_up"]

_BLOCK = 5000
_WAVE = 4
# Blocks; the driver has a copy of the locators of a wave.
_LARGEST_WAVE = 1000
_LOST = "worker lost: looking at this image's file ended its process; run ingest again"

Found = list[tuple[str, "str | ImageError"]]


class _LookUp:
    def __init__(self, roots: Sequence[Root]) -> None:
        self._roots = roots

    def __call__(self, block: Sequence[str]) -> tuple[Found, str | None]:
        """Return what was found, and the store of the block if it went silent."""
        files = Files(self._roots)
        return list(files.keys(block).items()), store_of(block[0]) if files.silent else None


def look_up(locators: Sequence[str], roots: Sequence[Root], concurrency: int) -> Iterator[tuple[str, str | ImageError]]:
    """Yield each locator of a file with its key, as `Files.keys` gives it, in no order.

    Blocks of stores are looked up in waves, at first one of each store, then twice as many from wave to wave. A store
    that does not answer is left out of the next waves: it costs one wait, not one per block. The files of this machine
    are looked up beside them, as many blocks at once as a wave may have.

    Args:
        locators: ``file:`` and ``store:``.
        roots: what may be opened.
        concurrency: tasks at once.
    """
    every = _blocks(locators)
    here = [block for block in every if not store_of(block[0])]
    blocks = [block for block in every if store_of(block[0])]
    size = len({store_of(block[0]) for block in blocks})
    silent: set[str] = set()
    work = _LookUp(roots)
    while here or blocks:
        wave = here[:_LARGEST_WAVE] + blocks[:size]
        here, blocks = here[_LARGEST_WAVE:], blocks[size:]
        size = min(max(_WAVE * concurrency, 2 * size), _LARGEST_WAVE)
        try:
            for found, store in map_partitions(
                work, wave, distributed=True, concurrency=concurrency, num_cpus=TASK_CPUS, retries=RETRIES
            ):
                if store is not None:
                    silent.add(store)
                yield from found
        except WorkersLost as error:
            for place in error.items:
                yield from ((locator, ImageError(_LOST, retryable=True)) for locator in wave[place])
        for block in (block for block in blocks if store_of(block[0]) in silent):
            yield from ((locator, ImageError(Files.SILENT, retryable=True)) for locator in block)
        blocks = [block for block in blocks if store_of(block[0]) not in silent]


def _blocks(locators: Sequence[str]) -> list[list[str]]:
    """Return blocks of one store each, the first of every store before the second of any."""
    numbered: list[tuple[int, list[str]]] = []
    for _, group in groupby(sorted(locators, key=store_of), key=store_of):
        members = list(group)
        starts = range(0, len(members), _BLOCK)
        numbered += ((start, members[start : start + _BLOCK]) for start in starts)
    return [block for _, block in sorted(numbered, key=lambda one: one[0])]
