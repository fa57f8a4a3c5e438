from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from budgetguard import BudgetManager, Guard
from budgetguard.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "disk"])
def guard(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Guard]:
    store = "memory://" if request.param == "memory" else f"disk://{tmp_path / 'books'}"
    made = Guard(store=store, project="app", clock=clock)
    yield made
    made.close()


@pytest.fixture
def manager(guard: Guard) -> BudgetManager:
    return BudgetManager("app", guard=guard)
