"""Races of a PostgreSQL server's own: who comes first makes the schema, and there is never a deadlock."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from budgetguard.core.accounts import Budget, Document, Grant
from budgetguard.core.holds import Booked, Charge, Granted, Hold, Outdated, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.stores import Store, open_store
from tests.servers.postgres import fresh_url, shared_server

from ._workers import ask_for_one_each, make_hold
from .test_stores import run_processes


@pytest.fixture
def url() -> str:
    return fresh_url(shared_server())


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = open_store(url, project="p")
    yield store
    store.close()


@pytest.mark.full
def test_ten_processes_that_come_first_at_once_make_the_schema_once(url: str) -> None:
    assert sum(run_processes(ask_for_one_each, url, 1, processes=10)) == 10
    schema = url.partition("schema=")[2]
    with psycopg.connect(shared_server().url) as con:
        versions = con.execute(f"SELECT version FROM {schema}.versions ORDER BY 1").fetchall()
    assert versions == [(number,) for number in range(1, len(versions) + 1)]


@pytest.mark.full
@pytest.mark.parametrize("exists", [True, False], ids=["account exists", "account is made by the hold"])
def test_one_hold_reserved_and_settled_by_many_at_once_counts_once(store: Store, exists: bool) -> None:
    gate = threading.Barrier(16)
    for _ in range(15):
        if exists:
            store.set_budget("user:1", Budget(1_000))
        hold = make_hold(10, budget=Budget(1_000))

        def both(number: int, hold: Hold = hold) -> int:
            gate.wait()
            if number % 2:
                assert isinstance(store.reserve(hold), Granted)
                return 0
            answer = store.settle(hold, Settlement(7))
            assert isinstance(answer, Booked)
            return answer.booked

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(both, range(16))) == 7
        balance = store.read("user:1")
        assert balance is not None
        assert (balance.spent_nanos, balance.held_nanos, balance.open_holds) == (7, 0, 0)
        store.delete("user:1")


def test_a_settle_that_waited_while_its_account_was_made_gives_back_what_that_holds(
    store: Store, url: str
) -> None:
    store.set_budget("user:2", Budget(1_000))
    alone = make_hold(10, budget=Budget(1_000))
    both = replace(alone, charges=(*alone.charges, Charge("user:2")))
    with psycopg.connect(shared_server().url) as con, ThreadPoolExecutor(1) as pool:
        con.execute(f"SELECT 1 FROM {url.partition('schema=')[2]}.accounts FOR UPDATE")
        settling = pool.submit(store.settle, both, Settlement(7))
        while not con.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert not settling.done(), settling.result()
        assert store.reserve(alone) == Granted(("user:1",))
        con.rollback()
        assert settling.result() == Booked(7)
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos, balance.open_holds) == (7, 0, 0)


def test_of_two_holds_with_one_id_on_different_accounts_the_first_counts(store: Store, url: str) -> None:
    for account in ("user:1", "user:2"):
        store.set_budget(account, Budget(1_000))
    schema = url.partition("schema=")[2]
    first = replace(make_hold(10), charges=(Charge("user:2"),))
    store.reserve(first)
    second = make_hold(10)
    with psycopg.connect(shared_server().url) as con, ThreadPoolExecutor(1) as pool:
        # As if the same id had been reserved on the other account, a moment before that is committed.
        con.execute(f"CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT * FROM {schema}.holds")
        con.execute("UPDATE mine SET id = %s", [second.id])
        con.execute(f"INSERT INTO {schema}.holds SELECT * FROM mine")
        asked = pool.submit(store.reserve, second)
        while not con.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert not asked.done(), asked.result()
        con.commit()
        assert asked.result() == Granted(("user:2",), repeated=True)
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.held_nanos, balance.open_holds) == (0, 0)


def test_settlements_of_one_model_are_all_observed_whoever_else_is_at_it(store: Store) -> None:
    for number in range(8):
        store.set_budget(f"user:{number}", Budget(None))

    def settle(number: int) -> None:
        for _ in range(25):
            now = system_clock()
            hold = Hold(new_hold_id(now), (Charge(f"user:{number}"),), 1, 1, 60_000, now, "1", "m", "chat")
            store.settle(hold, Settlement(1, observed=(("m", 100), ("n", 7))))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(settle, range(8)))
    assert sum(store.observations("m").values()) == sum(store.observations("n").values()) == 200


def test_scopes_are_saved_once_no_hold_is_granted_any_more_that_was_judged_by_others(
    store: Store, url: str
) -> None:
    store.set_budget("user:1", Budget(1_000))
    store.set_budget("user:2", Budget(1_000))
    schema = url.partition("schema=")[2]
    new = Document(5, "text")
    with psycopg.connect(shared_server().url) as con, ThreadPoolExecutor(3) as pool:
        con.execute(f"SELECT 1 FROM {schema}.accounts WHERE name = 'user:1' FOR UPDATE")
        begun = pool.submit(store.reserve, make_hold(10))
        _wait_for_locks(1, begun)
        saving = pool.submit(store.save_scopes, new, 0)
        _wait_for_locks(2, begun, saving)
        later = pool.submit(store.reserve, replace(make_hold(10), charges=(Charge("user:2"),)))
        _wait_for_locks(3, begun, saving, later)
        con.rollback()
        assert begun.result() == Granted(("user:1",))
        assert saving.result()
        assert later.result() == Outdated(new)
    assert isinstance(store.reserve(make_hold(10)), Outdated)
    assert store.reserve(replace(make_hold(10), scopes=5)) == Granted(("user:1",))


def test_of_many_who_save_scopes_at_once_one_does(url: str) -> None:
    store = open_store(f"{url}&timeout=60", project="p")  # a busy machine is no failure
    assert store.scopes() == Document()
    with ThreadPoolExecutor(8) as pool:
        for seen in range(5):
            new = [Document(seen + 1, str(number)) for number in range(8)]
            saved = list(pool.map(store.save_scopes, new, [seen] * 8))
            assert sum(saved) == 1
            assert store.scopes() == new[saved.index(True)]
    store.close()


def _wait_for_locks(number: int, *asked: Future[Any]) -> None:
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        while len(con.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall()) < number:
            assert not any(one.done() for one in asked), [one.result() for one in asked if one.done()]
            time.sleep(0.005)


@pytest.mark.full
def test_random_traffic_over_several_accounts_never_deadlocks_and_every_sum_agrees() -> None:
    """Every verb, on accounts in any order, with holds that expiry under everybody's hands."""
    server = shared_server()
    url = fresh_url(server)
    stores = [open_store(f"{url}&timeout=60", project="p") for _ in range(3)]
    accounts = [*(f"user:{number}" for number in range(6)), "labels:@unit=requests&user=1"]
    for name in accounts:
        stores[0].set_budget(name, Budget(10**9, "1s" if name == "user:5" else None))
    accounts.append("labels:@rolling=1s&user=1")
    stores[0].set_budget(accounts[-1], Budget(10**9, "1s", rolling=True))
    before = _deadlocks()

    def work(seed: int) -> None:
        dice = random.Random(seed)
        store = stores[seed % len(stores)]
        left: list[Hold] = []
        for _ in range(60):
            now = system_clock()
            chosen = dice.sample(accounts, dice.randint(1, 4))
            charges = tuple(
                Charge(name, budget=Budget(10**9, ephemeral_duration))
                if dice.random() < 0.5
                else Charge(name)
                for name, ephemeral_duration in ((name, dice.choice([None, "1s"])) for name in chosen)
            )
            ttl = dice.choice([1, 20, 60_000])
            hold = Hold(new_hold_id(now), charges, 10, dice.choice([0, 3, 10]), ttl, now, "1", "m", "chat",
                        units={"requests": (1, 1)})  # fmt: skip
            what = dice.random()
            if what < 0.45:
                store.reserve(hold)
                left.append(hold)
            elif what < 0.8 and left:
                store.settle(left.pop(dice.randrange(len(left))), Settlement(dice.randint(0, 20)))
            elif what < 0.84:
                store.settle(hold, Settlement(5))
            elif what < 0.88:
                store.delete(chosen[0])
            elif what < 0.92:
                store.reset(chosen[0])
            elif what < 0.94:
                store.set_budget(chosen[0], Budget(10**9, dice.choice([None, "1s"])))
            elif what < 0.95:
                store.grant(chosen[0], Grant(hold.id, 10, dice.choice([None, now + 20])))
                store.mark(chosen[0], dice.choice([0, -1]))
            elif what < 0.96:
                store.save_scopes(Document(), 0)
                list(store.list())
            elif what < 0.97 and left:
                store.attach(left[0].id, dice.choice("abc"))
                store.attached(dice.choice("abc"))
            elif what < 0.98:
                list(store.calls(now - 100))
            else:
                list(store.holds())

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(work, range(12)))
    assert _deadlocks() == before
    time.sleep(0.05)  # longer than the short ones live
    _check_sums(stores[0])
    for store in stores:
        store.close()


def _deadlocks() -> int:
    with psycopg.connect(shared_server().url) as con:
        con.execute("SELECT pg_stat_force_next_flush()")
        ((found,),) = con.execute("SELECT sum(deadlocks)::int FROM pg_stat_database").fetchall()
    return int(found)


def _check_sums(store: Store) -> None:
    """Work out anew from the holds what every account should say."""
    held = dict.fromkeys((balance.account for balance in store.list()), 0)
    for hold in store.holds():
        for name in hold.accounts:
            held[name] += 1
    for balance in store.list():
        assert balance.open_holds == held[balance.account]
        assert balance.spent_nanos == sum(balance.models.values())
        assert balance.held_nanos >= 0
        if balance.duration is None and balance.expiries == 0:
            assert balance.expired_nanos == 0
