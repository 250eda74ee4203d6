"""How requests are put together, and what a failing batch costs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caslie_ray.engines import Failure
from caslie_ray.engines._device import is_fatal, is_out_of_memory
from caslie_ray.engines._tensor_inputs import TensorRow, collate
from caslie_ray.engines.transformers._batching import TokenLimit, plan, run_batches
from caslie_ray.errors import EngineError

lengths = st.lists(st.integers(1, 200), max_size=40)


@given(lengths, st.integers(1, 9), st.integers(1, 900), st.none() | st.integers(1, 200))
def test_each_row_is_planned_once_within_the_limits(
    sizes: list[int], size: int, tokens: int, alone_above: int | None
) -> None:
    batches = plan(sizes, size, tokens, alone_above)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    for batch in batches:
        longest = max(sizes[index] for index in batch)
        assert len(batch) <= size
        assert len(batch) == 1 or longest * len(batch) <= tokens
        assert len(batch) == 1 or alone_above is None or longest <= alone_above


def test_similar_lengths_share_a_batch_longest_first() -> None:
    assert plan([3, 100, 2, 90, 1], 2, 1000) == [[1, 3], [0, 2], [4]]


@given(st.integers(1, 5000), st.lists(st.none() | st.integers(1, 9000), max_size=80))
def test_a_limit_stays_within_its_bounds_and_recovers(most: int, batches: list[int | None]) -> None:
    limit = TokenLimit(most, 48)
    for failed in batches:
        before, rows = limit.tokens, limit.rows
        if failed is None:
            limit.succeeded()
            assert before <= limit.tokens <= most
            assert rows <= limit.rows <= 48
        else:
            limit.failed(failed, 1 + failed % 48)
            assert limit.tokens <= max(1, min(before, failed // 2))
            assert limit.rows <= max(1, min(rows, (1 + failed % 48) // 2))
        assert limit.tokens >= 1
        assert limit.rows >= 1
    for _ in range(16 * 60):
        limit.succeeded()
    assert (limit.tokens, limit.rows) == (most, 48)


def test_a_limit_is_raised_only_after_many_batches_in_a_row() -> None:
    limit = TokenLimit(1000, 48)
    limit.failed(1000, 48)
    for _ in range(15):
        limit.succeeded()
    limit.failed(400, 9)
    for _ in range(15):
        limit.succeeded()
    assert (limit.tokens, limit.rows) == (200, 4)
    limit.succeeded()
    assert (limit.tokens, limit.rows) == (250, 5)


class Model:
    """Answers rows with their index; raises on request."""

    def __init__(self, *, at_most: int = 99, poison: Sequence[int] = (), error: Exception | None = None) -> None:
        self.at_most = at_most
        self.poison = poison
        self.error = error or RuntimeError("bad row")
        self.calls: list[list[int]] = []

    def __call__(self, batch: list[int]) -> list[str]:
        self.calls.append(batch)
        if len(batch) > self.at_most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if set(batch) & set(self.poison):
            raise self.error
        return [f"answer {index}" for index in batch]

    def run(self, batches: list[list[int]]) -> dict[int, str | Failure]:
        recovered: list[None] = []
        found = run_batches(
            batches,
            self,
            out_of_memory=is_out_of_memory,
            fatal=is_fatal,
            recover=lambda: recovered.append(None),
        )
        return dict(found)


def test_out_of_memory_halves_the_batch() -> None:
    model = Model(at_most=2)
    assert model.run([[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]) == {index: f"answer {index}" for index in range(10)}
    assert [len(batch) for batch in model.calls] == [8, 4, 2, 2, 4, 2, 2, 2]


def test_out_of_memory_alone_may_be_tried_again() -> None:
    answers = Model(at_most=0).run([[0, 1]])
    for answer in answers.values():
        assert isinstance(answer, Failure)
        assert answer.retryable
        assert "out of memory with this request alone" in answer.reason


def test_a_row_that_raises_fails_alone() -> None:
    answers = Model(poison=[3], error=KeyError("odd")).run([[0, 1, 2, 3, 4, 5], [6]])
    failed = answers.pop(3)
    assert failed == Failure("the model failed on this request: KeyError: 'odd'", retryable=False)
    assert answers == {index: f"answer {index}" for index in (0, 1, 2, 4, 5, 6)}


def test_a_lost_device_ends_the_engine() -> None:
    model = Model(poison=[1], error=torch.AcceleratorError("CUDA error: device-side assert triggered"))
    with pytest.raises(EngineError, match="the device is lost"):
        model.run([[0, 1], [2]])


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_is_out_of_memory(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) is memory
    assert not is_fatal(error)


def test_interrupts_are_not_swallowed() -> None:
    def stop(batch: list[int]) -> list[str]:
        raise KeyboardInterrupt

    found = run_batches([[0]], stop, out_of_memory=is_out_of_memory, fatal=is_fatal, recover=lambda: None)
    with pytest.raises(KeyboardInterrupt):
        list(found)


def test_tokens_are_padded_on_the_left_and_images_after_the_last() -> None:
    def row(ids: list[int], tiles: int) -> TensorRow:
        tokens = len(ids)
        return TensorRow(
            {
                "input_ids": torch.tensor([ids]),
                "attention_mask": torch.ones(1, tokens, dtype=torch.long),
                "cross_attention_mask": torch.ones(1, tokens, 1, tiles, dtype=torch.long),
                "pixel_values": torch.ones(1, tiles, 3, 2, 2),
            },
            tokens,
            cut=False,
        )

    batch = collate([row([5, 6], 3), row([7, 8, 9, 4], 1)])
    assert batch["input_ids"].tolist() == [[6, 6, 5, 6], [7, 8, 9, 4]]
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1], [1, 1, 1, 1]]
    assert batch["cross_attention_mask"].shape == (2, 4, 1, 3)
    assert batch["cross_attention_mask"][0, :, 0].tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert batch["cross_attention_mask"][1, :, 0].tolist() == [[1, 0, 0]] * 4
    assert batch["pixel_values"].shape == (2, 3, 3, 2, 2)
    assert batch["pixel_values"].sum(dim=(2, 3, 4)).tolist() == [[12, 12, 12], [12, 0, 0]]
