"""The contract, on a Valkey server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from budgetguard.stores import Store, open_store
from budgetguard.testing.clock import FakeClock
from budgetguard.testing.contract import MakeStore, TransferContract
from tests.servers.valkey import ValkeyServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    yield server
    server.kill()


class TestRedis(TransferContract):
    @pytest.fixture
    def make_store(self, server: ValkeyServer) -> MakeStore:
        with server.client() as client:
            client.flushall()

        def make(clock: FakeClock, *, project: str = "p", retention: str = "90d") -> Store:
            return open_store(server.url, project=project, clock=clock, retention=retention)

        return make
