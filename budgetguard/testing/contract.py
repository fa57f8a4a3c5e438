"""The store contract: what every store must do, as pytest tests to inherit.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def make_store(self, my_server):
            def make(clock, *, project="p", retention="90d"):
                return MyStore(my_server.url, project=project, clock=clock, retention=retention)
            return make

Every test starts on empty balances: `make_store` is asked once a test for a factory, and each call
of the factory opens the same balances again. A store that cannot be opened twice says
`shared = False`. Needs pytest.
"""

from __future__ import annotations

from budgetguard.testing._contract_base import ContractBase, MakeStore
from budgetguard.testing._contract_documents import DocumentLaws
from budgetguard.testing._contract_grants import GrantLaws
from budgetguard.testing._contract_holds import HoldLaws
from budgetguard.testing._contract_marks import MarkLaws
from budgetguard.testing._contract_records import RecordLaws
from budgetguard.testing._contract_rolling import RollingLaws
from budgetguard.testing._contract_rollover import RolloverLaws
from budgetguard.testing._contract_shadow import ShadowLaws
from budgetguard.testing._contract_time import TimeLaws
from budgetguard.testing._contract_trail import TrailLaws
from budgetguard.testing._contract_transfer import TransferLaws
from budgetguard.testing._contract_units import UnitLaws

__all__ = ["MakeStore", "TransferContract", "StoreContract"]


class StoreContract(
    HoldLaws,
    TimeLaws,
    RecordLaws,
    UnitLaws,
    ShadowLaws,
    GrantLaws,
    RolloverLaws,
    RollingLaws,
    DocumentLaws,
    MarkLaws,
    TrailLaws,
    ContractBase,
):
    """Prove that a store keeps the laws."""


class TransferContract(StoreContract, TransferLaws):
    """Prove that a store keeps the laws, and that projects can be copied from it and to it."""
