from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from budgetguard import BudgetManager, Guard
from budgetguard.testing.clock import FakeClock
from tests.server.services import running


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", pytest.param("disk", marks=pytest.mark.full), "hosted"])
def guard(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Guard]:
    disk = f"disk://{tmp_path / 'books'}"
    with ExitStack() as stack:
        store = "memory://" if request.param == "memory" else disk
        if request.param == "hosted":
            store = stack.enter_context(running(disk, clock=clock)).url
        made = Guard(store=store, project="app", clock=clock)
        stack.callback(made.close)
        yield made


@pytest.fixture
def manager(guard: Guard) -> BudgetManager:
    """Return a manager on the guard's store, or at its service."""
    url = guard.store.url
    if url.startswith("http:"):
        return BudgetManager("app", "hosted", url, guard=guard)
    return BudgetManager("app", guard=guard)
