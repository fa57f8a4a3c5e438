"""Leave no surroundings behind, whatever a test did."""

from collections.abc import Iterator

import pytest

from budgetguard.engine.threads import surroundings


@pytest.fixture(autouse=True)
def _nothing_stays_current() -> Iterator[None]:
    yield
    assert surroundings() is None
