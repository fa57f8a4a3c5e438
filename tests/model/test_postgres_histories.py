"""Random histories once more: the memory store, a PostgreSQL server opened twice, and the naive model."""

from __future__ import annotations

import os
from functools import cache
from itertools import count

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import initialize

from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from budgetguard.testing.clock import FakeClock
from tests.servers.postgres import fresh_url, shared_server

from .naive import Model
from .test_histories import Histories


@cache
def _url() -> str:
    """Return one schema for all histories, which have a project each."""
    return fresh_url(shared_server())


class PostgresHistories(Histories):
    _projects = count()

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        project = f"p{next(self._projects)}"
        self.disk = [open_store(_url(), project=project, clock=self.clock) for _ in range(2)]
        self.memory = open_store("memory://", project=project, clock=self.clock)
        self.told = {0: [], 1: []}
        self.memory.on_expiry(lambda expiry: self.told[0].append(expiry.hold_id))
        for store in self.disk:
            store.on_expiry(lambda expiry: self.told[1].append(expiry.hold_id))
        self.model = Model()
        self.holds = []
        for account in ("user:1", "project:p"):
            self._set_budget(account, Budget(30, "hourly"), 0)

    def look(self) -> None:
        """Compare with the model, and to the last field with the store that runs the ledger itself."""
        super().look()
        server = self.disk[0]
        assert list(server.list()) == list(self.memory.list())
        assert list(server.calls()) == list(self.memory.calls())

    def teardown(self) -> None:
        if hasattr(self, "disk"):
            for store in (*self.disk, self.memory):
                store.close()


_MORE = os.environ.get("BUDGETGUARD_TEST_HISTORIES")

TestPostgresHistories = PostgresHistories.TestCase
TestPostgresHistories.settings = settings(
    max_examples=int(_MORE or 25),
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=_MORE is None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
