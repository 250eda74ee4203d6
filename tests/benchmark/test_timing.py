from __future__ import annotations

import pytest

from caslie_ray.benchmark._timing import Timing, median, ratios, spread, steady_seconds


def timing(rate: float | None) -> Timing:
    return Timing(10, rate, 1.0)


def test_the_steady_state_leaves_out_what_came_before_the_first_rows() -> None:
    # 10 rows after 100 s, then 90 rows in 9 s: 10 rows a second.
    assert steady_seconds([[(100.0, 10), (104.0, 50), (109.0, 100)]]) == pytest.approx(10.0)


def test_tables_of_models_that_work_one_after_the_other_add_up() -> None:
    first = [(0.0, 10), (9.0, 100)]
    second = [(50.0, 20), (54.0, 100)]
    whole = [(60.0, 100)]  # written at once, at the end
    assert steady_seconds([first, second, whole]) == pytest.approx(10.0 + 5.0)


def test_of_tables_of_models_that_work_together_the_last_one_counts() -> None:
    captions = [(10.0, 10), (28.0, 90), (30.0, 100)]
    votes = [(11.0, 20), (31.0, 100)]
    rows = [(12.0, 10), (30.0, 90), (32.0, 100)]
    later = [(50.0, 20), (54.0, 100)]
    assert steady_seconds([captions, votes, rows]) == pytest.approx(100 * 20 / 90)
    assert steady_seconds([later, rows, captions, votes]) == pytest.approx(100 * 20 / 90 + 5.0)


@pytest.mark.parametrize("tables", [[], [[]], [[(1.0, 48)]], [[(1.0, 8), (1.0, 48)]]])
def test_rows_that_come_at_once_have_no_rate(tables: list[list[tuple[float, int]]]) -> None:
    assert steady_seconds(tables) is None


def test_a_ratio_is_taken_within_a_round() -> None:
    ours, others = [timing(10), timing(40), timing(None)], [timing(5), timing(10), timing(1)]
    assert ratios(ours, others) == [2.0, 4.0]
    assert ratios(ours, others, scale=4.0) == [0.5, 1.0]
    assert ratios([None], [timing(1)]) == []


def test_spread_and_median() -> None:
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert median([None, 4.0, 2.0]) == 3.0
    assert median([None]) is None
    assert Timing(10, None, 4.0).whole_rate == 2.5
