"""Money stays exact to the last Nano up to 2^53-1, though the scripts compute in doubles."""

from __future__ import annotations

import pytest

from budgetguard.core.holds import Denied, Granted
from budgetguard.core.money import MAX_NANOS
from budgetguard.stores import open_store
from budgetguard.testing.clock import FakeClock
from tests.servers.valkey import ValkeyServer

from .helpers import budget, granted, make_hold, money, now, settled

# Odd, round, and such as a double's own notation would write with an exponent.
LARGE = [MAX_NANOS, MAX_NANOS - 1, 10**15, 9 * 10**15, 2**52 + 1, 4_503_599_627_370_497]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("limit", LARGE)
def test_the_last_nano_of_a_large_budget_decides(server: ValkeyServer, clock: FakeClock, limit: int) -> None:
    store = open_store(server.url, project="p", clock=clock)
    budget(store, limit)
    settled(store, granted(store, make_hold(limit // 3, now=clock())), limit // 3)
    granted(store, make_hold(limit // 3 - 1, now=clock()))
    left = limit - limit // 3 - (limit // 3 - 1)
    assert isinstance(store.reserve(make_hold(left + 1, now=clock())), Denied)
    assert isinstance(store.reserve(make_hold(left, now=clock())), Granted)
    assert money(store) == (limit, limit // 3, limit - limit // 3)
    assert isinstance(store.reserve(make_hold(1, now=clock())), Denied)
    store.close()


@pytest.mark.parametrize("amount", LARGE)
def test_a_large_hold_is_given_back_expired_and_taken_back_to_the_nano(
    server: ValkeyServer, clock: FakeClock, amount: int
) -> None:
    store = open_store(server.url, project="p", clock=clock)
    budget(store, None)
    call = granted(store, make_hold(amount, ttl=1_000, now=clock()))
    assert money(store) == (None, 0, amount)
    clock.advance(1)
    assert money(store) == (None, amount, 0)
    assert now(store).models == {"m": amount}
    assert now(store).expired_nanos == amount
    assert settled(store, call, amount - 1).late
    assert money(store) == (None, amount - 1, 0)
    (record,) = store.calls()
    assert (record.amount_nanos, record.on_expiry_nanos, record.cost_nanos) == (amount, amount, amount - 1)
    store.close()


@pytest.mark.parametrize("limit", LARGE)
@pytest.mark.parametrize("percent", [1, 50, 80, 99, 100])
def test_a_threshold_of_a_large_budget_is_crossed_at_its_nano(
    server: ValkeyServer, clock: FakeClock, limit: int, percent: int
) -> None:
    store = open_store(server.url, project="p", clock=clock)
    budget(store, limit)
    needed = -(-limit * percent // 100)
    assert settled(store, granted(store, make_hold(0, now=clock())), needed - 1, (percent,)).crossings == ()
    (crossing,) = settled(store, granted(store, make_hold(0, now=clock())), 1, (percent,)).crossings
    assert crossing.threshold == percent
    assert crossing.balance.spent_nanos == needed
    store.close()


def test_what_was_spent_far_beyond_any_limit_is_still_counted_exactly(
    server: ValkeyServer, clock: FakeClock
) -> None:
    store = open_store(server.url, project="p", clock=clock)
    budget(store, MAX_NANOS)
    for _ in range(3):
        settled(store, make_hold(0, now=clock()), MAX_NANOS)
    settled(store, make_hold(0, now=clock()), 1)
    assert money(store) == (MAX_NANOS, 3 * MAX_NANOS + 1, 0)
    assert isinstance(store.reserve(make_hold(1, now=clock())), Denied)
    store.close()
