"""From votes to a verdict."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslie_ray.quality import CHOICES, Tally, answer_of, count, fleiss_kappa, quorum

ANSWERS = ("yes", "no", None)

# Fleiss (1971), Table 1: 30 patients, each diagnosed by 6 psychiatrists as one of 5 (depression, personality
# disorder, schizophrenia, neurosis, other).
DIAGNOSES = (
    "00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031 "
    "00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"
)


def judged(answers: tuple[str | None, ...], voters: int) -> tuple[bool, bool]:
    """Validity and verdict, written straight from the rule."""
    valid = [answer for answer in answers if answer]
    enough = len(valid) >= (voters + 1) / 2
    return enough, enough and valid.count("yes") > len(valid) / 2


@pytest.mark.parametrize("voters", [1, 3, 5, 7])
def test_early_exit_gives_the_verdict_and_the_validity_of_the_full_vote(voters: int) -> None:
    for votes in product(ANSWERS, repeat=voters):
        full = count(votes, voters)
        assert (full.has_quorum, full.verdict) == judged(votes, voters)
        for asked in range(voters + 1):
            tally = count(votes[:asked], voters)
            if tally.decided:
                assert (tally.has_quorum, tally.verdict) == (full.has_quorum, full.verdict), (votes, asked)


@pytest.mark.parametrize("voters", [1, 3, 5])
def test_no_voter_is_asked_after_the_decision(voters: int) -> None:
    """A valid vote is decided as soon as no way to go on changes it, not later."""
    for asked in range(voters + 1):
        for votes in product(ANSWERS, repeat=asked):
            ends = {judged(votes + rest, voters) for rest in product(ANSWERS, repeat=voters - asked)}
            tally = count(votes, voters)
            assert tally.decided == (len(ends) == 1 and tally.has_quorum), votes


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_a_decision_is_not_changed_by_later_votes(yes: int, no: int, failed: int, outstanding: int) -> None:
    tally = Tally(yes, no, failed, outstanding)
    if tally.decided and outstanding:
        for after in (
            Tally(yes + 1, no, failed, outstanding - 1),
            Tally(yes, no + 1, failed, outstanding - 1),
            Tally(yes, no, failed + 1, outstanding - 1),
        ):
            assert after.decided
            assert after.verdict == tally.verdict


@pytest.mark.parametrize(
    ("votes", "voters", "valid", "verdict"),
    [
        (["yes", "yes", "yes"], 5, True, True),
        (["no", "no", "no"], 5, True, False),
        (["yes", "yes", None, None, None], 5, False, False),
        (["yes", "yes", "no", None, None], 5, True, True),
        (["yes", "yes", "no", "no", None], 5, True, False),
        ([None], 1, False, False),
        ([], 0, True, False),
    ],
)
def test_the_rule_by_example(votes: list[str | None], voters: int, valid: bool, verdict: bool) -> None:
    tally = count(votes, voters)
    assert (tally.has_quorum, tally.verdict) == (valid, verdict)


def test_the_quorum_is_more_than_half_of_the_lineup() -> None:
    assert [quorum(voters) for voters in (1, 3, 5, 7)] == [1, 2, 3, 4]


def test_a_tie_is_no() -> None:
    assert [answer_of(p) for p in (0.0, 0.5, 0.5000001, 1.0)] == ["no", "no", "yes", "yes"]
    assert CHOICES == ("yes", "no")


@pytest.mark.parametrize(("diagnosis", "kappa"), [(0, 0.245), (1, 0.245), (2, 0.520), (3, 0.471), (4, 0.566)])
def test_fleiss_published_example(diagnosis: int, kappa: float) -> None:
    """The agreement that Fleiss gives for each diagnosis is that of this diagnosis against all others."""
    rows = [(int(patient[diagnosis]), 6 - int(patient[diagnosis])) for patient in DIAGNOSES.split()]
    assert fleiss_kappa(rows) == pytest.approx(kappa, abs=5e-4)


def test_fleiss_kappa_by_hand() -> None:
    # Observed (1 + 1/3 + 1/3 + 1) / 4 = 2/3; yes in 6 of 12, so expected 1/2; (2/3 - 1/2) / (1/2) = 1/3.
    assert fleiss_kappa([(3, 0), (2, 1), (1, 2), (0, 3)]) == pytest.approx(1 / 3)
    assert fleiss_kappa([(2, 0), (0, 2)]) == pytest.approx(1)
    assert fleiss_kappa([(1, 1), (1, 1)]) == pytest.approx(-1)


def test_fleiss_kappa_where_there_is_none() -> None:
    assert fleiss_kappa([]) is None
    assert fleiss_kappa([(1, 0), (0, 1)]) is None
    assert fleiss_kappa([(3, 0), (3, 0)]) is None
    assert fleiss_kappa([(0, 5)] * 7) is None
    with pytest.raises(ValueError, match="same number of votes"):
        fleiss_kappa([(3, 0), (3, 2)])
