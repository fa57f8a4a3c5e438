"""A number that was changed by hand is found, in every kind of store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, cast

import psycopg
import pytest
import redis

from budgetguard.core.accounts import Budget
from budgetguard.core.rows import Export, Stored
from budgetguard.stores import open_store
from budgetguard.stores.memory import MemoryStore
from budgetguard.stores.verifying import Difference, verify
from budgetguard.testing._contract_base import PROJECT, USER, granted, hold, settled
from budgetguard.testing._contract_life import live
from budgetguard.testing._contract_transfer import MovableStore
from budgetguard.testing.clock import FakeClock
from tests.servers.postgres import shared_server
from tests.servers.valkey import ValkeyServer

from .conftest import NewUrl

Sql = Callable[[str], Any]

# What to change by hand, and what is then found of user:1: what, model, and how much too high.
DISK = [
    ("UPDATE accounts SET spent = spent + 1 WHERE name = 'user:1'", [("spent", None, 1)]),
    ("UPDATE accounts SET held = held - 5 WHERE name = 'user:1'", [("held", None, -5)]),
    ("UPDATE accounts SET opened = opened + 1 WHERE name = 'user:1'", [("open holds", None, 1)]),
    ("UPDATE accounts SET models = '{\"gpt-4o\":14}' WHERE name = 'user:1'", [("spent", "gpt-4o", 2)]),
    (
        "UPDATE hold SET cost = cost - 1 WHERE request_id = 'r'",
        [("spent", None, 1), ("spent", "gpt-4o", 1)],
    ),
    ("DELETE FROM hold WHERE request_id = 'r'", [("spent", None, 12), ("spent", "gpt-4o", 12)]),
    ("UPDATE hold SET amount = amount + 3 WHERE open = 1", [("held", None, -3)]),
]
POSTGRES = [
    ("UPDATE accounts SET spent_nanos = spent_nanos + 1 WHERE name = 'user:1'", [("spent", None, 1)]),
    ("UPDATE accounts SET held_nanos = held_nanos - 5 WHERE name = 'user:1'", [("held", None, -5)]),
    ("UPDATE accounts SET expiries = expiries + 1 WHERE name = 'user:1'", [("expiries", None, 1)]),
    ("UPDATE accounts SET models = '{\"x\": 2, \"gpt-4o\": 12}' WHERE name = 'user:1'", [("spent", "x", 2)]),
    ("UPDATE accounts SET open_holds = 3 WHERE name = 'user:1'", [("open holds", None, 2)]),
    ("DELETE FROM charges", [("open holds listed", None, -1)]),
    ("DELETE FROM holds WHERE request_id = 'r'", [("spent", None, 12), ("spent", "gpt-4o", 12)]),
]
REDIS = [
    ("return redis.call('HINCRBY', P .. 'a:user:1', 'spent', 1)", [("spent", None, 1)]),
    ("return redis.call('HINCRBY', P .. 'a:user:1', 'held', -5)", [("held", None, -5)]),
    ("return redis.call('HINCRBY', P .. 'a:user:1', 'expired', 4)", [("expired", None, 4)]),
    ("return redis.call('HSET', P .. 'm:user:1', 'x', 2)", [("spent", "x", 2)]),
    (
        "return redis.call('ZADD', P .. 'o:user:1', 9e15, 'f')",
        [("open holds", None, 1), ("open holds listed", None, 1)],
    ),
]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def opened(url: str, clock: FakeClock) -> MovableStore:
    """Return a store with one settled call of 12 Nanos, its record's request `r`, and one of 20 under way."""
    store = cast(MovableStore, open_store(url, project="p", clock=clock))
    store.set_budget(USER, Budget(1_000))
    call = granted(store, hold(clock, 12))
    assert store.attach(call.id, "r")
    settled(store, call, 12)
    granted(store, hold(clock, 20))
    assert verify(store)
    return store


def found(store: MovableStore) -> list[tuple[str, str | None, int]]:
    told = verify(store)
    assert not told
    assert {one.account for one in told.differences} == {USER}
    return [(one.what, one.model, one.stored - one.records) for one in told.differences]


@pytest.mark.parametrize(("change", "differences"), DISK)
def test_a_change_by_hand_is_found_on_disk(
    change: str, differences: list[Any], new_url: NewUrl, clock: FakeClock
) -> None:
    url = new_url("disk")
    store = opened(url, clock)
    with closing(sqlite3.connect(f"{url.removeprefix('disk://')}/cache.db", isolation_level=None)) as con:
        con.execute(change)
    assert found(store) == differences
    store.close()


@pytest.mark.parametrize(("change", "differences"), POSTGRES)
def test_a_change_by_hand_is_found_in_postgresql(
    change: str, differences: list[Any], new_url: NewUrl, clock: FakeClock
) -> None:
    url = new_url("postgresql")
    store = opened(url, clock)
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        con.execute(f"SET search_path TO {url.partition('schema=')[2]}".encode())
        con.execute(change.encode())
    assert found(store) == differences
    store.close()


@pytest.mark.parametrize(("change", "differences"), REDIS)
def test_a_change_by_hand_is_found_in_redis(
    change: str, differences: list[Any], new_url: NewUrl, clock: FakeClock, valkeys: ValkeyServer
) -> None:
    url = new_url("redis")
    store = opened(url, clock)
    with redis.Redis.from_url(url) as client:
        client.eval(f"local P = KEYS[1] {change}", 1, "bg:2:{p}:")
    assert found(store) == differences
    store.close()


def test_a_change_by_hand_is_found_in_memory(clock: FakeClock) -> None:
    store = opened("memory://", clock)
    assert isinstance(store, MemoryStore)
    store._tables.accounts[USER]["spent"] += 1
    assert verify(store).differences == (Difference(USER, "spent", 13, 12),)


class Busy:
    """A store to which others write between any two rows that it exports."""

    def __init__(self, store: MovableStore, write: Callable[[int], object]) -> None:
        self._store, self._write = store, write

    def export(self) -> Export:
        export = self._store.export()
        return Export(export.at, self._rows(export.rows))

    def _rows(self, rows: Iterator[Stored]) -> Iterator[Stored]:
        for number, one in enumerate(rows):
            yield one
            self._write(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["disk", "redis", "postgresql"])
def test_balances_that_are_written_meanwhile_are_what_their_records_come_to(
    scheme: str, new_url: NewUrl, clock: FakeClock
) -> None:
    store = cast(MovableStore, open_store(new_url(scheme), project="p", clock=clock))
    other = open_store(store.url, project="p", clock=clock)
    live(store, clock)
    under_way = [granted(store, hold(clock, 3, USER, PROJECT)) for _ in range(30)]
    for _ in range(250):  # more than a page
        settled(store, granted(store, hold(clock, 1, USER)), 1)

    def write(number: int) -> None:
        clock.advance(0.001)
        if under_way and number % 3 == 0:
            settled(other, under_way.pop(), 2)
        elif number % 3 == 1:
            granted(other, hold(clock, 3, PROJECT))
        elif number % 50 == 2:
            other.reset(PROJECT)

    assert verify(cast(MovableStore, Busy(store, write))).differences == ()
    assert not under_way
    assert verify(store)
    store.close()
    other.close()
