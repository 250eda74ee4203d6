"""Settings and a web server for the tests of the data set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from caslie_ray.profiles import Profile, load_profile
from tests.dataset.world import Site, serving


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile("mini", ["images.allow_private=true", "images.timeout_s=5.0", "images.retries=1"])


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as one:
        yield one
