"""A server that loses what it had, or has what is no number: failed, never empty and never a grant."""

from __future__ import annotations

import time

import pytest
import redis

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.errors import StoreError
from budgetguard.stores import Store, open_store, redis_link
from tests.servers.valkey import ValkeyServer

from .conftest import Start
from .helpers import USER, budget, granted, make_hold, money, settled

PROJECT = "project:p"
KEYS = "bg:2:{p}:"


def call(amount: int = 1) -> Hold:
    """Make a hold on a user, who is made where need be, and on the project if that has a budget."""
    made = system_clock()
    charges = (Charge(USER, required=True, budget=Budget(10**9)), Charge(PROJECT))
    return Hold(new_hold_id(made), charges, amount, amount, 60_000, made, "1", "m", "chat")


@pytest.fixture
def store(server: ValkeyServer) -> Store:
    store = open_store(server.url, project="p")
    budget(store, 10**9)
    budget(store, 50_000, PROJECT)
    granted(store, call())
    return store


@pytest.mark.parametrize("listed", [True, False])
def test_an_account_that_is_lost_is_not_passed_over(
    store: Store, client: redis.Redis, server: ValkeyServer, listed: bool
) -> None:
    client.delete(f"{KEYS}a:{PROJECT}")
    if not listed:
        client.zrem(f"{KEYS}accounts", PROJECT)
    with pytest.raises(StoreError, match=r"account 'project:p' of .* is lost: .* Restore it from a backup"):
        store.reserve(call())
    with pytest.raises(StoreError, match="is lost"):
        store.settle(call(), Settlement(1))
    assert money(store)[1:] == (0, 1)
    if listed:  # to a program that has never seen it as well
        with pytest.raises(StoreError, match="is lost"):
            open_store(server.url, project="p").reserve(call())
    budget(store, 50_000, PROJECT)
    granted(store, call())


def test_a_server_that_was_flushed_is_not_taken_for_an_empty_one(store: Store, client: redis.Redis) -> None:
    client.flushall()
    with pytest.raises(StoreError, match="is lost"):
        store.reserve(call())
    assert client.keys("*") == []


def test_an_account_that_somebody_deleted_is_not_lost(store: Store, server: ValkeyServer) -> None:
    other = open_store(server.url, project="p")
    assert other.delete(PROJECT)
    granted(store, call())
    assert store.delete(USER)
    granted(store, call())
    other.close()


def test_a_list_names_what_is_lost_after_all_the_others(store: Store, client: redis.Redis) -> None:
    client.delete(f"{KEYS}a:{PROJECT}")
    listing = store.list()
    assert next(listing).account == USER
    with pytest.raises(StoreError, match=r"'project:p' .* is lost"):
        next(listing)


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "text", "0x10", "1e3", "1.5", "9" * 30])
@pytest.mark.parametrize("field", ["spent", "held", "limit", "end", "window"])
def test_a_value_that_is_no_number_is_damage_and_never_a_grant(
    store: Store, client: redis.Redis, field: str, value: str
) -> None:
    client.hset(f"{KEYS}a:{USER}", field, value)
    for verb in (
        lambda: store.reserve(call()),
        lambda: store.settle(call(), Settlement(1)),
        lambda: store.read(USER),
        lambda: list(store.list()),
    ):
        with pytest.raises(StoreError, match=r"'user:1' of project 'p' .* is damaged: reset the account, or"):
            verb()
    if field in ("spent", "held"):
        assert store.reset(USER) is not None
        assert money(store) == (10**9, 0, 1)
    assert store.delete(USER)
    assert store.read(USER) is None


def test_a_record_that_the_server_dropped_has_its_call_booked_once(store: Store, client: redis.Redis) -> None:
    ended = granted(store, make_hold(10))
    settled(store, ended, 5)
    client.delete(f"{KEYS}h:{ended.id}")
    assert settled(store, ended, 5).repeated
    assert money(store)[1] == 5


def test_an_eviction_that_is_switched_on_later_is_noticed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "_ASK_EVERY", 0.05)
    server = start()
    store = open_store(server.url, project="p")
    budget(store, 10**9)
    held = granted(store, make_hold(10))
    with server.client() as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        time.sleep(0.1)
        with pytest.raises(StoreError, match=r"would delete budgets .*maxmemory-policy allkeys-lru"):
            store.reserve(make_hold(10))
        settled(store, held, 7)  # what is spent is booked all the same
        client.config_set("maxmemory-policy", "noeviction")
    granted(store, make_hold(10))
    store.close()


def test_a_project_of_an_older_schema_is_refused_and_left_as_it_is(
    server: ValkeyServer, client: redis.Redis
) -> None:
    client.zadd("bg:1:{p}:accounts", {USER: 0})
    with pytest.raises(StoreError, match=r"has schema 1, and .* knows 2: use the budgetguard that made it"):
        open_store(server.url, project="p")
    assert client.keys() == [b"bg:1:{p}:accounts"]
    budget(open_store(server.url, project="q"), 100)
