"""Fixtures of the captioning tests."""

from __future__ import annotations

import pytest

from tests.captioning.fakes import KeyedAnswers
from tests.worlds import InProcess


@pytest.fixture
def answers() -> KeyedAnswers:
    return KeyedAnswers()


@pytest.fixture(scope="module")
def ask() -> InProcess:
    """The models of the miniature lineup in this process, loaded once per module."""
    return InProcess()
