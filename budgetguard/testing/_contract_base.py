"""What the parts of the store contract share: fixtures to fill in, and short helpers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar, Protocol

import pytest

from budgetguard.core.accounts import Balance, Budget, Grant
from budgetguard.core.holds import (
    Booked,
    Charge,
    Denied,
    Granted,
    Hold,
    HoldRecord,
    Settlement,
    new_hold_id,
)
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Milliseconds
from budgetguard.stores.base import Store
from budgetguard.testing.clock import FakeClock

USER = "user:1"
PROJECT = "project:p"
TTL: Milliseconds = 60_000


class MakeStore(Protocol):
    """Open the store under test; every call opens the same balances, if the store can be shared."""

    def __call__(self, clock: FakeClock, *, project: str = "p", retention: str = "90d") -> Store:
        """Return a store that tells the time by `clock`."""


class ContractBase:
    """Fixtures of the contract.

    Attributes:
        shared: whether two openings see the same balances.
    """

    shared: ClassVar[bool] = True

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Return a factory of the store under test. Override this."""
        raise NotImplementedError("override the make_store fixture: it returns a MakeStore")

    @pytest.fixture
    def clock(self) -> FakeClock:
        """Return the clock that the store tells the time by."""
        return FakeClock()

    @pytest.fixture
    def store(self, make_store: MakeStore, clock: FakeClock) -> Iterator[Store]:
        """Open an empty store."""
        store = make_store(clock)
        yield store
        store.close()

    @pytest.fixture
    def brief(self, make_store: MakeStore, clock: FakeClock) -> Iterator[Store]:
        """Open an empty store that keeps records for a day."""
        store = make_store(clock, retention="1d")
        yield store
        store.close()

    @pytest.fixture
    def other(self, make_store: MakeStore, clock: FakeClock, store: Store) -> Iterator[Store]:
        """Open the same balances once more, as another process would; of a store that cannot, the same."""
        if not self.shared:
            yield store
            return
        other = make_store(clock)
        yield other
        other.close()


def hold(
    clock: FakeClock,
    amount: Nanos,
    *accounts: str | Charge,
    on_expiry: Nanos | None = None,
    ttl: Milliseconds = TTL,
    model: str = "gpt-4o",
    tags: tuple[str, ...] = (),
    units: Mapping[str, int | tuple[int, int]] = MappingProxyType({}),
    labels: Mapping[str, str] = MappingProxyType({}),
    scopes: int = 0,
) -> Hold:
    """Make a hold on required accounts (`user:1` if none is named) that books its amount if it expires.

    `units` are what is set aside of other units, and what is booked if it expires: the same by default.
    """
    charges = [a if isinstance(a, Charge) else Charge(a, required=True) for a in accounts or (USER,)]
    return Hold(
        id=new_hold_id(clock()),
        charges=tuple(charges),
        amount=amount,
        on_expiry=amount if on_expiry is None else on_expiry,
        ttl=ttl,
        created=clock(),
        user="1",
        model=model,
        endpoint="chat",
        tags=tags,
        units={unit: one if isinstance(one, tuple) else (one, one) for unit, one in units.items()},
        labels=labels,
        scopes=scopes,
    )


def granted(store: Store, wanted: Hold) -> Hold:
    """Reserve a hold that must be granted, and return it."""
    answer = store.reserve(wanted)
    assert isinstance(answer, Granted), f"expected a grant, got {answer}"
    return wanted


def denied(store: Store, wanted: Hold) -> Balance:
    """Reserve a hold that must be refused, and return the balance that refused it."""
    answer = store.reserve(wanted)
    assert isinstance(answer, Denied), f"expected a refusal, got {answer}"
    return answer.balance


def settled(
    store: Store,
    ended: Hold,
    cost: Nanos,
    thresholds: tuple[int, ...] = (),
    units: Mapping[str, int] = MappingProxyType({}),
) -> Booked:
    """Settle a hold on accounts that exist."""
    answer = store.settle(ended, Settlement(cost, thresholds=thresholds, units=units))
    assert isinstance(answer, Booked), f"expected a settlement, got {answer}"
    return answer


def sweep(store: Store, clock: FakeClock, *, cost: Nanos) -> None:
    """Make so many calls on `user:1` that any store has swept what is old."""
    for _ in range(700):
        settled(store, granted(store, hold(clock, 1)), cost)


def attached(store: Store, request_id: str) -> HoldRecord:
    """Return the hold that an answer was attached to, which must exist."""
    found = store.attached(request_id)
    assert found is not None, f"{request_id!r} should lead to a hold"
    return found


def record_of(store: Store, made: Hold) -> HoldRecord:
    """Return the record of a hold, which must exist."""
    (found,) = (one for one in store.calls() if one.id == made.id)
    return found


def budget(store: Store, limit: Nanos | None, account: str = USER, duration: str | None = None) -> Balance:
    """Set the budget of an account."""
    return store.set_budget(account, Budget(limit, duration))


def now(store: Store, account: str = USER) -> Balance:
    """Read an account that must exist."""
    balance = store.read(account)
    assert balance is not None, f"{account} should exist"
    return balance


def money(store: Store, account: str = USER) -> tuple[Nanos | None, Nanos, Nanos]:
    """Return limit, spent and held of an account that must exist."""
    balance = now(store, account)
    return balance.limit_nanos, balance.spent_nanos, balance.held_nanos


def raised(
    store: Store, amount: int, until: Milliseconds | None, ident: str = "g", account: str = USER
) -> Balance:
    """Raise the limit of an account that must exist."""
    balance = store.grant(account, Grant(ident, amount, until))
    assert balance is not None
    return balance


def in_seconds(clock: FakeClock, seconds: float) -> Milliseconds:
    """Return the time so many seconds from now."""
    return clock() + round(seconds * 1000)


def limit(store: Store, account: str = USER) -> int | None:
    """Return the limit in force."""
    return now(store, account).limit_nanos
