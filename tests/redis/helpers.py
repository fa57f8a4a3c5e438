"""Short ways to say things about stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.stores import Store

USER = "user:1"


def make_hold(amount: int = 1, *accounts: str, ttl: int = 600_000, now: int | None = None) -> Hold:
    made = system_clock() if now is None else now
    charges = tuple(Charge(account, required=True) for account in accounts or (USER,))
    return Hold(new_hold_id(made), charges, amount, amount, ttl, made, "1", "m", "chat")


def granted(store: Store, hold: Hold) -> Hold:
    answer = store.reserve(hold)
    assert isinstance(answer, Granted), answer
    return hold


def settled(store: Store, hold: Hold, cost: int, thresholds: tuple[int, ...] = ()) -> Booked:
    answer = store.settle(hold, Settlement(cost, thresholds=thresholds))
    assert isinstance(answer, Booked), answer
    return answer


def budget(store: Store, limit: int | None, account: str = USER, duration: str | None = None) -> Balance:
    return store.set_budget(account, Budget(limit, duration))


def now(store: Store, account: str = USER) -> Balance:
    balance = store.read(account)
    assert balance is not None
    return balance


def money(store: Store, account: str = USER) -> tuple[int | None, int, int]:
    balance = now(store, account)
    return balance.limit_nanos, balance.spent_nanos, balance.held_nanos


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Check how long something takes; generous, since the machine may be busy."""
    begun = monotonic()
    yield
    assert monotonic() - begun < seconds + 1.0
