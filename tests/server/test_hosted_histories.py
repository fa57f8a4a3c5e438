"""Random histories once more: the memory store, a service opened twice, and the naive model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from budgetguard.stores.base import Transfer
from budgetguard.stores.verifying import verify
from budgetguard.testing.clock import FakeClock
from tests.model.naive import Model
from tests.model.test_histories import Histories

from .services import Service, running

CLOCK = FakeClock()
SERVICES: list[Service] = []


@pytest.fixture(scope="module", autouse=True)
def service() -> Iterator[None]:
    """Run a service for the machines, which hypothesis makes without asking for a fixture."""
    with tempfile.TemporaryDirectory() as folder, running(f"disk://{folder}/store", clock=CLOCK) as made:
        SERVICES.append(made)
        yield
        SERVICES.remove(made)


class HostedHistories(Histories):
    in_full = True
    _projects = count()

    @initialize()
    def begin(self) -> None:
        (service,) = SERVICES
        self.clock = CLOCK
        self.clock.set(FakeClock()())
        project = f"p{next(self._projects)}"
        self.disk = [
            open_store(f"{service.url}?timeout=60", project=project, clock=self.clock) for _ in range(2)
        ]
        self.memory = open_store("memory://", project=project, clock=self.clock)
        self.told = {0: [], 1: []}
        self.memory.on_expiry(lambda expiry: self.told[0].append(expiry.hold_id))
        for store in self.disk:
            store.on_expiry(lambda expiry: self.told[1].append(expiry.hold_id))
        self.model = Model()
        self.holds = []
        for account in ("user:1", "project:p"):
            self._set_budget(account, Budget(30, "hourly"), 0)

    @rule(by=st.just(0))
    def balances_are_added_up_again(self, by: int) -> None:
        """Look at the service's own store beside it: rows do not cross the wire."""
        (service,) = SERVICES
        beneath = open_store(service.store_url, project=self.memory.project, clock=self.clock)
        try:
            for store in (self.memory, beneath):
                assert isinstance(store, Transfer)
                assert verify(store).differences == ()
        finally:
            beneath.close()

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            for store in (*self.disk, self.memory):
                store.close()


_MORE = os.environ.get("BUDGETGUARD_TEST_HISTORIES")

TestHostedHistories = HostedHistories.TestCase
TestHostedHistories.settings = settings(
    max_examples=int(_MORE or 10),
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=_MORE is None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
