"""The contract, on every store that needs no server."""

from pathlib import Path

import pytest

from budgetguard.stores import Store, open_store
from budgetguard.testing.clock import FakeClock
from budgetguard.testing.contract import MakeStore, TransferContract


class TestMemory(TransferContract):
    shared = False

    @pytest.fixture
    def make_store(self) -> MakeStore:
        def make(clock: FakeClock, *, project: str = "p", retention: str = "90d") -> Store:
            return open_store("memory://", project=project, clock=clock, retention=retention)

        return make


class TestDisk(TransferContract):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        def make(clock: FakeClock, *, project: str = "p", retention: str = "90d") -> Store:
            return open_store(
                f"disk://{tmp_path}/new/store", project=project, clock=clock, retention=retention
            )

        return make
