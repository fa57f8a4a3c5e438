"""A server with bills, and a guard whose clock tests move, so that calls are of any day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from budgetguard import Guard
from budgetguard.core.money import Nanos
from budgetguard.core.usage import Usage
from budgetguard.testing.clock import FakeClock

from .server import BillingServer

TODAY = datetime.now(UTC).date()


def day(ago: int) -> date:
    """Return the UTC day so many days ago."""
    return TODAY - timedelta(days=ago)


def at(ago: int, hour: int = 12, minute: int = 0) -> int:
    """Return a time of that day, in milliseconds."""
    return int(datetime.combine(day(ago), time(hour, minute), UTC).timestamp()) * 1_000


@pytest.fixture
def bills() -> Iterator[BillingServer]:
    with BillingServer() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(at(3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "budgets"


@pytest.fixture
def guard(folder: Path, clock: FakeClock) -> Iterator[Guard]:
    made = Guard(store=f"disk://{folder}", project="default", clock=clock)
    made.set_budget(None, user="u")
    yield made
    made.close()


@pytest.fixture
def call(guard: Guard) -> Callable[..., Nanos]:
    """Make a call through the guard, and return what was booked."""

    def make(model: str, user: str = "u", **units: int) -> Nanos:
        before = {record.id for record in guard.calls()}
        with guard.call(user=user, model=model, input_tokens=10_000, max_output_tokens=10_000) as made:
            made.settle(Usage.of(**units))
        (new,) = (record for record in guard.calls() if record.id not in before)
        return new.cost_nanos

    return make
