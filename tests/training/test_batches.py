from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from caslie_ray.engines.trainable import Turn
from caslie_ray.training._batches import micro_batches, packed, padded
from caslie_ray.training._learning_rate import rate_at
from caslie_ray.training._sampler import batch_at, share_of

TURNS = [Turn(list(range(10, 10 + length)), length - answer, cut=False) for length, answer in ((5, 2), (9, 3), (4, 1))]


@given(count=st.integers(1, 60), batch=st.integers(1, 20), seed=st.integers(0, 5))
def test_each_epoch_sees_every_example_once(count: int, batch: int, seed: int) -> None:
    steps = -(-count // batch)
    for epoch in (0, 1):
        seen = np.concatenate([batch_at(epoch * steps + place, count, batch, seed) for place in range(steps)])
        assert sorted(seen.tolist()) == list(range(count))


def test_epochs_and_seeds_differ_in_their_order() -> None:
    first = batch_at(0, 50, 50, 0).tolist()
    assert first == batch_at(0, 50, 50, 0).tolist()
    assert first != batch_at(1, 50, 50, 0).tolist()
    assert first != batch_at(0, 50, 50, 1).tolist()


@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=40), world=st.integers(1, 5))
def test_workers_share_a_batch_without_a_remainder(lengths: list[int], world: int) -> None:
    batch = list(range(len(lengths)))
    shares = [share_of(batch, np.array(lengths), rank, world) for rank in range(world)]
    assert sorted(index for share in shares for index in share) == batch
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_labels_are_the_tokens_of_the_answer_alone() -> None:
    inputs, labels = padded(TURNS, pad=0)
    assert inputs["input_ids"].shape == labels.shape == (3, 9)
    for row, turn in enumerate(TURNS):
        taken = labels[row] != -100
        assert labels[row][taken].tolist() == list(turn.ids[turn.start :])
        # What is predicted at a place is the token after it.
        assert inputs["input_ids"][row][taken].tolist() == list(turn.ids[turn.start - 1 : -1])
        assert int(inputs["attention_mask"][row].sum()) == len(turn.ids)


def test_packed_turns_restart_their_positions() -> None:
    inputs, labels = packed(TURNS)
    assert inputs["position_ids"].tolist() == [[*range(5), *range(9), *range(4)]]
    assert labels[labels != -100].tolist() == [token for turn in TURNS for token in turn.ids[turn.start :]]


@pytest.mark.parametrize("pack", [False, True])
@given(lengths=st.lists(st.integers(2, 60), min_size=1, max_size=30), tokens=st.integers(10, 200))
def test_micro_batches_keep_their_budget_and_lose_nothing(pack: bool, lengths: list[int], tokens: int) -> None:
    turns = [Turn(list(range(length)), length - 1, cut=False) for length in lengths]
    parts = list(micro_batches(turns, 4, tokens, 0, pack=pack, alone_above=50))
    assert sorted(row for part in parts for row in part.rows) == list(range(len(turns)))
    assert sum(part.answers for part in parts) == len(turns)
    for part in parts:
        assert len(part.rows) <= 4
        assert part.labels.numel() <= tokens or len(part.rows) == 1
        assert len(part.rows) == 1 or max(lengths[row] for row in part.rows) <= 50


def test_the_learning_rate_warms_up_to_its_peak_and_decays_to_zero() -> None:
    rates = [rate_at(step, 100, 5, 1e-4) for step in range(100)]
    assert rates[:5] == pytest.approx([2e-5, 4e-5, 6e-5, 8e-5, 1e-4])
    assert rates[5] == max(rates)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-6
    assert torch.tensor(rates).min() > 0
