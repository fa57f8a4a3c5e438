"""The contract, on every store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from budgetguard.testing.contract import MakeStore, StoreContract, TransferContract
from tests.stores import STORES, Row


def _contract_of(row: Row) -> type[StoreContract]:
    class Contract(TransferContract if row.transfers else StoreContract):  # type: ignore[misc]  # one of two
        shared = row.shared

        @pytest.fixture
        def make_store(self, tmp_path: Path) -> Iterator[MakeStore]:
            with row.serve(tmp_path) as place:
                yield place.open

    return Contract


globals().update({f"Test{row.name.capitalize()}": _contract_of(row) for row in STORES})
