"""Merging of partitions while others are computed."""

from __future__ import annotations

import threading

import pytest

from caslie_ray.captioning._background_merge import BackgroundMerge


class Merges:
    """Records which partitions are merged; a merge can be held up."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.may_end = threading.Event()
        self.may_end.set()
        self.started = threading.Semaphore(0)

    def __call__(self, names: list[str]) -> dict[str, int]:
        self.calls.append(names)
        self.started.release()
        assert self.may_end.wait(30)
        return dict.fromkeys(names, len(self.calls))

    def wait_for_a_call(self) -> None:
        assert self.started.acquire(timeout=30)


def test_a_partition_is_merged_when_its_last_row_is_written() -> None:
    merges = Merges()
    with BackgroundMerge(merges, {"00": 5, "01": 3}) as merge:
        merge.wrote("00", 4)
        merge.wrote("01", 2)
        assert merges.calls == []
        merge.wrote("00", 1)
        merges.wait_for_a_call()
    assert merges.calls == [["00"]]
    assert merge.waiting == {"00": 1}


def test_partitions_that_are_complete_meanwhile_are_merged_together() -> None:
    merges = Merges()
    merges.may_end.clear()
    with BackgroundMerge(merges, {"00": 1, "01": 1, "02": 1, "03": 1}) as merge:
        merge.wrote("00", 1)
        merges.wait_for_a_call()
        merge.wrote("01", 1)
        merge.wrote("02", 1)
        merges.may_end.set()
        merges.wait_for_a_call()
    assert merges.calls == [["00"], ["01", "02"]]


def test_a_partition_is_merged_once_though_more_rows_come() -> None:
    merges = Merges()
    with BackgroundMerge(merges, {"00": 1}) as merge:
        merge.wrote("00", 1)
        merges.wait_for_a_call()
        merge.wrote("00", 1)
        merge.wrote("of another run", 8)
    assert merges.calls == [["00"]]


class Refused(Merges):
    def __call__(self, names: list[str]) -> dict[str, int]:
        super().__call__(names)
        raise PermissionError(f"no access to {names}")


def test_an_error_ends_the_job_with_the_next_row() -> None:
    def write(merge: BackgroundMerge) -> None:
        with merge:
            merge.wrote("00", 1)
            for _ in range(1000):
                threading.Event().wait(0.01)
                merge.wrote("01", 0)

    with pytest.raises(PermissionError, match="00"):
        write(BackgroundMerge(Refused(), {"00": 1, "01": 9}))


def test_an_error_ends_the_job_at_the_latest_after_the_last_row() -> None:
    merges = Refused()

    def write(merge: BackgroundMerge) -> None:
        with merge:
            merge.wrote("00", 1)
            merges.wait_for_a_call()

    with pytest.raises(PermissionError, match="00"):
        write(BackgroundMerge(merges, {"00": 1}))


def test_a_job_that_is_asked_to_end_does_not_wait() -> None:
    merges = Merges()
    merges.may_end.clear()
    merge = BackgroundMerge(merges, {"00": 1})

    def write() -> None:
        with merge:
            merge.wrote("00", 1)
            merges.wait_for_a_call()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert merge.waiting == {}
    merges.may_end.set()
