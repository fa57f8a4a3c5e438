"""The contract, over a real socket: a service on a disk store, in this process, with the test's clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from budgetguard.stores import Store, open_store
from budgetguard.testing.clock import FakeClock
from budgetguard.testing.contract import MakeStore, StoreContract

from .services import running


class TestHosted(StoreContract):
    @pytest.fixture
    def make_store(self, tmp_path: Path) -> Iterator[MakeStore]:
        with ExitStack() as stack:
            urls: dict[str, str] = {}

            def make(clock: FakeClock, *, project: str = "p", retention: str = "90d") -> Store:
                # Retention is the service's: one with another runs beside, on the same folder.
                if retention not in urls:
                    service = running(f"disk://{tmp_path}/store", clock=clock, retention=retention)
                    urls[retention] = stack.enter_context(service).url
                store = open_store(urls[retention], project=project, clock=clock, retention=retention)
                stack.callback(store.close)
                return store

            yield make
