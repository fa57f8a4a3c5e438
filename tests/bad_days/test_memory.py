"""The memory store in a process that runs for long."""

from __future__ import annotations

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Booked, Charge, Hold, Settlement, new_hold_id
from budgetguard.core.usage import MOST_MODELS
from budgetguard.stores import memory, open_store
from budgetguard.testing.clock import FakeClock


def test_records_are_bounded_and_no_call_whose_record_is_gone_is_booked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "MOST_RECORDS", 50)
    clock = FakeClock()
    store = open_store("memory://", project="p", clock=clock)
    store.set_budget("user:1", Budget(10**9))

    def hold() -> Hold:
        clock.advance(0.001)
        charge = Charge("user:1", required=True)
        return Hold(new_hold_id(clock()), (charge,), 1, 1, 10**9, clock(), "1", "m", "chat")

    waiting, calls = hold(), [hold() for _ in range(2_500)]
    store.reserve(waiting)
    for call in calls:
        store.reserve(call)
        store.settle(call, Settlement(1, observed=((f"m{call.id}", 5),)))
    left = [record.id for record in store.calls()]
    assert len(left) < 50 + 1_024 + 1
    assert left[0] == waiting.id, "what is open stays"
    assert left[-1] == calls[-1].id
    assert len(store._tables.observed) <= MOST_MODELS  # type: ignore[attr-defined]
    for call in calls:
        assert store.settle(call, Settlement(1)) == Booked(0, repeated=True)
    assert store.settle(waiting, Settlement(3)) == Booked(3)
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos) == (2_503, 0)
