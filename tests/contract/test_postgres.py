"""The contract, on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from budgetguard.stores import Store, open_store
from budgetguard.testing.clock import FakeClock
from budgetguard.testing.contract import MakeStore, TransferContract
from tests.servers.postgres import fresh_url, shared_server


class TestPostgres(TransferContract):
    @pytest.fixture
    def make_store(self) -> Iterator[MakeStore]:
        url = fresh_url(shared_server())
        opened: list[Store] = []

        def make(clock: FakeClock, *, project: str = "p", retention: str = "90d") -> Store:
            opened.append(open_store(url, project=project, clock=clock, retention=retention))
            return opened[-1]

        yield make
        for store in opened:
            store.close()
