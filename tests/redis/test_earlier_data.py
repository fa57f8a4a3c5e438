"""Accounts and holds as the version before units and grants wrote them go on as they are."""

from __future__ import annotations

from typing import cast

import pytest
import redis

from budgetguard.core.accounts import Budget, Grant
from budgetguard.core.holds import Charge, Denied, Expiry, Settlement, new_hold
from budgetguard.stores import Store, open_store
from budgetguard.stores.verifying import verify
from budgetguard.testing._contract_transfer import MovableStore
from budgetguard.testing.clock import FakeClock
from tests.servers.valkey import ValkeyServer

from .helpers import USER, granted, make_hold, money, now, settled

# A user of 1000 a day and a run of 500. One hold settled for 90 at 90, one expired, one is open.
PREFIX = "bg:2:{p}:"
SETTLED, EXPIRED, OPEN = (f"019b76daa80000000000000000000{n:03}" for n in (1, 2, 3))
LIFE = {USER: "211284391653231", "run:1": "263953674956844"}
ACCOUNT = {
    "anchor": "1767225600000",
    "created": "1767225600000",
    "expired": "200",
    "expiries": "1",
    "held": "300",
    "start": "1767225600000",
    "timezone": "UTC",
}
HASHES: dict[str, dict[str, str | bytes]] = {
    f"a:{USER}": ACCOUNT
    | {
        "crossed": ",5,10,",
        "duration": "daily",
        "end": "1767312000000",
        "ephemeral": "0",
        "epoch": LIFE[USER],
        "limit": "1000",
        "spent": "290",
        "updated": "1767225602000",
        "window": LIFE[USER],
    },
    "a:run:1": ACCOUNT
    | {
        "crossed": "",
        "duration": "",
        "end": "",
        "ephemeral": "1",
        "epoch": LIFE["run:1"],
        "limit": "500",
        "spent": "200",
        "updated": "1767225600000",
        "window": LIFE["run:1"],
    },
    f"h:{SETTLED}": {
        "amount": "100",
        "cost": "90",
        "created": "1767225600000",
        "ended": "1767225602000",
        "endpoint": "chat",
        "expires": "1767226200000",
        "model": "m",
        "on": b"\x93\xa6user:1\xaf211284391653231\xaf211284391653231",
        "on_expiry": "100",
        "outcome": "answered",
        "state": "settled",
        "usage": "",
        "user": "1",
    },
    f"h:{EXPIRED}": {
        "amount": "200",
        "cost": "200",
        "created": "1767225600000",
        "ended": "1767225602000",
        "endpoint": "chat",
        "expires": "1767225601000",
        "model": "m",
        "on": b"\x96\xa6user:1\xaf211284391653231\xaf211284391653231"
        b"\xa5run:1\xaf263953674956844\xaf263953674956844",
        "on_expiry": "200",
        "outcome": "unknown",
        "state": "expired",
        "user": "1",
    },
    f"h:{OPEN}": {
        "amount": "300",
        "created": "1767225600000",
        "endpoint": "chat",
        "expires": "1767226200000",
        "model": "m",
        "on": b"\x96\xa6user:1\xaf211284391653231\xa0\xa5run:1\xaf263953674956844\xa0",
        "on_expiry": "300",
        "state": "held",
        "user": "1",
    },
    f"m:{USER}": {"m": "290"},
    "m:run:1": {"m": "200"},
}
SETS: dict[str, dict[str, float]] = {
    "accounts": {"run:1": 0, USER: 0},
    "ended": {SETTLED: 1767225602000, EXPIRED: 1767225602000},
    "holds": {SETTLED: 0, EXPIRED: 0, OPEN: 0},
    "open": {OPEN: 0},
    f"o:{USER}": {OPEN: 1767226200000},
    "o:run:1": {OPEN: 1767226200000},
}


@pytest.fixture
def clock() -> FakeClock:
    clock = FakeClock()
    clock.set(1767225602000)
    return clock


@pytest.fixture
def store(server: ValkeyServer, client: redis.Redis, clock: FakeClock) -> Store:
    for key, fields in HASHES.items():
        client.hset(PREFIX + key, mapping=fields)
    for key, members in SETS.items():
        client.zadd(PREFIX + key, members)
    return open_store(server.url, project="p", clock=clock)


def test_what_an_earlier_version_stored_is_read_as_it_was(store: Store) -> None:
    account = now(store)
    assert money(store) == (1_000, 290, 300)
    assert (account.grants, account.rolling, account.frees, account.rollover_nanos) == ((), False, (), 0)
    assert (account.document.revision, account.document.rules, account.document.labels) == (0, "", "")
    assert (account.models, account.expiries, account.expired_nanos) == ({"m": 290}, 1, 200)
    calls = {call.id: call for call in store.calls()}
    assert [calls[i].state for i in (SETTLED, EXPIRED, OPEN)] == ["settled", "expired", "held"]
    assert {(*call.units, *call.labels, *call.shadowed) for call in calls.values()} == {()}
    assert store.scopes().revision == 0
    assert list(store.trail()) == []
    assert verify(cast(MovableStore, store)).differences == ()


def test_calls_go_on_where_an_earlier_version_left_them(store: Store, clock: FakeClock) -> None:
    late = settled(store, new_hold(clock(), (), ident=EXPIRED), 150)
    assert late.late
    assert money(store) == (1_000, 240, 300)
    clock.advance(600)
    told: list[Expiry] = []
    store.on_expiry(told.append)
    assert money(store) == (1_000, 540, 0)
    assert [expiry.hold_id for expiry in told] == [OPEN]
    assert settled(store, new_hold(clock(), (), ident=OPEN), 10, (5, 10, 25)).crossings[0].threshold == 25
    assert money(store) == (1_000, 250, 0)
    assert isinstance(store.reserve(make_hold(751, now=clock())), Denied)
    granted(store, make_hold(750, now=clock()))
    assert verify(cast(MovableStore, store)).differences == ()
    clock.advance(86_400)
    assert money(store) == (1_000, 0, 0)


def test_an_account_of_an_earlier_version_takes_what_is_new(store: Store, clock: FakeClock) -> None:
    assert store.grant(USER, Grant("g", 50, clock() + 1_000)) is not None
    assert money(store)[0] == 1_050
    clock.advance(1)
    assert money(store)[0] == 1_000
    assert store.mark(USER, 0)
    assert not store.mark(USER, 0)
    balance = store.set_budget(USER, Budget(1_000, "daily", rollover=2_000, rules="r"))
    assert (balance.spent_nanos, balance.rollover_nanos, balance.document.rules) == (290, 2_000, "r")
    clock.advance(86_400)
    # The hold that was open has expired: 1000 - 290 - 300 were left.
    assert money(store) == (1_410, 0, 0)
    charge = Charge(USER, revision=now(store).document.revision)
    call = new_hold(clock(), (charge,), amount=1, units={"tokens": (5, 5)}, ttl=1_000)
    granted(store, call)
    store.settle(call, Settlement(1, units={"tokens": 3}))
    assert next(c for c in store.calls() if c.id == call.id).units == {"tokens": (5, 5, 3)}
    assert verify(cast(MovableStore, store)).differences == ()
