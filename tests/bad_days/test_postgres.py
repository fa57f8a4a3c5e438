"""Bad days of a PostgreSQL store: killed, frozen, locked, full, forked, misconfigured."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Booked, Charge, Denied, Granted, Hold, Settlement, new_hold_id
from budgetguard.core.process import system_clock
from budgetguard.errors import StoreError
from budgetguard.stores import Store, open_store, postgres_schema
from budgetguard.stores.postgres import PostgresStore
from budgetguard.testing.clock import FakeClock
from tests.servers.postgres import PostgresServer, fresh_url, running, shared_server

KNOWN = max(postgres_schema._versions())


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresServer]:
    """A server that tests may kill; what it has said is on disk is on disk."""
    with running(fsync=True) as server:
        yield server


@pytest.fixture
def url() -> str:
    return fresh_url(shared_server())


def hold(amount: int = 10, *names: str, ttl: int = 600_000) -> Hold:
    now = system_clock()
    charges = tuple(Charge(name, required=True) for name in names or ("user:1",))
    return Hold(new_hold_id(now), charges, amount, amount, ttl, now, "1", "m", "chat")


def money(store: Store, account: str = "user:1") -> tuple[int, int]:
    balance = store.read(account)
    assert balance is not None
    return balance.spent_nanos, balance.held_nanos


def schema_of(url: str) -> str:
    return url.partition("schema=")[2].partition("&")[0]


# Restarts


@pytest.mark.full
def test_a_server_killed_and_restarted_between_settles_loses_nothing_and_counts_nothing_twice(
    own_server: PostgresServer,
) -> None:
    store = open_store(f"{fresh_url(own_server)}&timeout=30", project="p")
    store.set_budget("user:1", Budget(10**15))
    done = threading.Event()
    settled: list[str] = []

    def work(_: int) -> None:
        while not done.is_set():
            call = hold(7)
            _until_it_is_back(lambda: store.reserve(call))  # noqa: B023  # called before the next turn
            answer = _until_it_is_back(lambda: store.settle(call, Settlement(3)))  # noqa: B023
            assert isinstance(answer, Booked)
            settled.append(call.id)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, number) for number in range(4)]
        try:
            for _ in range(5):
                so_far = len(settled)
                while len(settled) < so_far + 20 and not any(each.done() for each in working):
                    time.sleep(0.01)
                own_server.kill()
                own_server.start()
        finally:
            done.set()
        for each in working:
            each.result()
    assert money(store) == (3 * len(settled), 0)
    calls = {call.id: call for call in store.calls()}
    assert sorted(calls) == sorted(settled)
    assert {(call.state, call.cost_nanos) for call in calls.values()} == {("settled", 3)}
    store.close()


def _until_it_is_back(verb: Any) -> Any:
    give_up = time.monotonic() + 60
    while True:
        try:
            return verb()
        except StoreError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


def test_a_store_goes_on_by_itself_once_the_server_is_back(own_server: PostgresServer) -> None:
    store = open_store(fresh_url(own_server), project="p")
    store.set_budget("user:1", Budget(100))
    own_server.stop()
    with pytest.raises(StoreError, match="nobody answers there: is it running, and at that address"):
        store.reserve(hold())
    own_server.start()
    assert isinstance(store.reserve(hold()), Granted)
    store.close()


def test_a_connection_that_broke_while_idle_is_not_noticed(url: str) -> None:
    store = open_store(url, project="p")
    store.set_budget("user:1", Budget(100))
    for _ in range(3):
        _end_all_sessions(schema_of(url))
        assert isinstance(store.reserve(hold()), Granted)
    store.close()


def test_a_connection_that_breaks_in_mid_verb_is_made_again_and_the_verb_counts_once(url: str) -> None:
    store = open_store(url, project="p")
    store.set_budget("user:1", Budget(100))
    with _locking(url, "user:1") as locker, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store.reserve, hold())
        _wait_for_a_lock(asked)
        _end_all_sessions(schema_of(url))
        locker.rollback()
        assert isinstance(asked.result(), Granted)
    assert money(store) == (0, 10)
    store.close()


# Waiting


def test_a_lock_that_somebody_holds_is_a_store_error_within_the_time_and_never_a_refusal(url: str) -> None:
    store = open_store(f"{url}&timeout=1", project="p")
    store.set_budget("user:1", Budget(100))
    with _locking(url, "user:1"):
        for verb in (lambda: store.reserve(hold()), lambda: store.settle(hold(), Settlement(1))):
            began = time.monotonic()
            with pytest.raises(StoreError, match="somebody else held a lock on its rows for too long"):
                verb()
            assert 0.5 < time.monotonic() - began < 3
    assert money(store) == (0, 0)
    assert isinstance(store.reserve(hold(101)), Denied)
    store.close()


@pytest.mark.full
@pytest.mark.parametrize("option", ["", "&prepare=0"])
def test_a_server_that_stands_still_is_a_store_error_within_the_time(
    own_server: PostgresServer, option: str
) -> None:
    store = open_store(f"{fresh_url(own_server)}&timeout=1{option}", project="p")
    store.set_budget("user:1", Budget(100))
    own_server.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(StoreError, match="it did not answer within 1 s"):
            store.reserve(hold())
        assert time.monotonic() - began < 4
    finally:
        own_server.signal(signal.SIGCONT)
    assert store.read("user:1") is not None
    store.close()


@pytest.mark.full
def test_threads_that_wait_for_a_connection_are_told_within_the_time(url: str) -> None:
    store = PostgresStore(
        f"{url}&timeout=0.5&pool=1&prepare=0", project="p", clock=system_clock, retention="90d"
    )
    store.set_budget("user:1", Budget(100))
    link = store._link
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(link.run, b"SELECT pg_sleep(2)", [], time.monotonic() + 60)
        while not _is_asleep():
            assert not taken.done(), taken.result()
            time.sleep(0.005)
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"did not answer within 0\.5 s.*all 1 connections were in use"):
            store.reserve(hold())
        assert time.monotonic() - began < 1.5
        taken.result()
    assert isinstance(store.reserve(hold()), Granted)
    store.close()


def test_one_connection_serves_many_threads(url: str) -> None:
    store = open_store(f"{url}&timeout=30&pool=1", project="p")
    store.set_budget("user:1", Budget(1_000))
    with ThreadPoolExecutor(16) as pool:
        assert all(isinstance(a, Granted) for a in pool.map(lambda _: store.reserve(hold(10)), range(100)))
    assert money(store) == (0, 1_000)
    with psycopg.connect(shared_server().url) as con:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'budgetguard' AND query LIKE %s"
        )
        assert con.execute(query, [f"%{schema_of(url)}%"]).fetchone() == (1,)
    store.close()


def test_a_statement_that_takes_too_long_is_told_by_the_server(url: str) -> None:
    store = PostgresStore(f"{url}&timeout=1", project="p", clock=system_clock, retention="90d")
    store.set_budget("user:1", Budget(100))
    with pytest.raises(StoreError, match=r"could not do it in time.*57014"):
        store._link.run(b"SELECT pg_sleep(30)", [], store._link.deadline())
    assert store.read("user:1") is not None
    store.close()


# Clocks


@pytest.mark.full
def test_clients_with_clocks_an_hour_apart_agree_by_the_clock_of_the_server(url: str) -> None:
    program = """
import sys, time
ahead = int(sys.argv[2]) * 10**9
real = time.time_ns
time.time_ns = lambda: real() + ahead
from budgetguard.core.accounts import Budget
from budgetguard.stores import open_store
from budgetguard.core.holds import *
from budgetguard.core.process import system_clock
store = open_store(sys.argv[1], project="p")
now = system_clock()
charges = (Charge("user:1", required=True),)
print(type(store.reserve(Hold(new_hold_id(now), charges, 60, 60, 600_000, now))).__name__)
balance = store.read("user:1")
print(balance.starts_ms, balance.resets_ms, balance.held_nanos, balance.open_holds, balance.expiries)
"""
    store = open_store(url, project="p")
    first = store.set_budget("user:1", Budget(100, "15m"))
    said = [
        subprocess.run(
            [sys.executable, "-c", program, url, str(seconds)], capture_output=True, text=True, check=True
        ).stdout.split()
        for seconds in (3_600, -3_600, 0)
    ]
    assert [words[0] for words in said] == ["Granted", "Denied", "Denied"]
    assert {tuple(words[1:]) for words in said} == {
        (str(first.starts_ms), str(first.resets_ms), "60", "1", "0")
    }
    store.close()


def test_windows_and_expiries_come_by_the_clock_of_the_server(url: str) -> None:
    store = open_store(url, project="p")
    first = store.set_budget("user:1", Budget(100, "1s"))
    store.reserve(hold(60, ttl=1))
    assert first.resets_ms is not None
    while (balance := store.read("user:1")) is not None and balance.resets_ms == first.resets_ms:
        time.sleep(0.02)
    assert balance is not None
    assert balance.resets_ms is not None
    assert (balance.resets_ms - first.resets_ms) % 1_000 == 0
    assert (balance.spent_nanos, balance.held_nanos, balance.open_holds) == (0, 0, 0)
    store.close()


# Forks


@pytest.mark.full
def test_a_forked_child_opens_connections_of_its_own_and_leaves_its_parents_alone(url: str) -> None:
    program = """
import os, sys, warnings
warnings.simplefilter("error", ResourceWarning)
from tests.bad_days.test_postgres import hold
from budgetguard.stores import open_store
from budgetguard.core.accounts import Budget
import gc
store = open_store(sys.argv[1], project="p")
store.set_budget("user:1", Budget(1_000))
(mine,) = store._link._idle
backend = mine.info.backend_pid
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        store.reserve(hold())
        assert store._link._idle[0].info.backend_pid != backend
        store.close()
        del mine
        gc.collect()
        sys.exit(0)
    children.append(child)
    store.reserve(hold())
for child in children:
    assert os.waitpid(child, 0)[1] == 0
store.reserve(hold())
assert store._link._idle[0].info.backend_pid == backend, "the parent's connection was ended by a child"
print(store.read("user:1").held_nanos)
store.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.stderr, done.returncode) == ("70\n", "", 0)


# Rights, versions, encodings


def test_a_role_without_the_right_to_make_the_schema_is_told_what_to_run_and_what_to_grant(url: str) -> None:
    server = shared_server()
    role = f"app_{schema_of(url)}"
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute(f"CREATE ROLE {role} LOGIN")
    theirs = url.replace("owner@", f"{role}@")
    store = open_store(theirs, project="p")
    with pytest.raises(
        StoreError, match=r"run .?budgetguard migrate --store|Run `budgetguard migrate --store"
    ):
        store.read("user:1")
    owner = PostgresStore(url, project="p", clock=system_clock, retention="90d")
    before, after = owner.migrate()
    assert before == 0
    assert after > 0
    with pytest.raises(StoreError, match="lacks rights: run `budgetguard migrate"):
        store.read("user:1")
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute(owner.grants().replace("ROLE_NAME", role))
    store.set_budget("user:1", Budget(100))
    assert isinstance(store.reserve(hold()), Granted)
    assert owner.migrate() == (after, after)
    store.close()
    owner.close()


@pytest.mark.parametrize("version", [9, 999], ids=["before the first release", "newer"])
def test_a_schema_of_another_budgetguard_is_refused_and_left_alone(url: str, version: int) -> None:
    store = open_store(url, project="p")
    store.set_budget("user:1", Budget(100))
    store.close()
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        con.execute(f"INSERT INTO {schema_of(url)}.versions VALUES ({version}, now())")
    another = open_store(url, project="p")
    told = f"has version {version}, and this budgetguard knows {KNOWN}: use the budgetguard that made it"
    with pytest.raises(StoreError, match=told):
        another.reserve(hold())
    another.close()


def test_a_database_in_an_encoding_that_cannot_hold_every_name_is_refused() -> None:
    server = shared_server()
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute("DROP DATABASE IF EXISTS latin")
        con.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    store = open_store(server.url_of(database="latin"), project="p")
    with pytest.raises(StoreError, match=r"encoded in LATIN1.*createdb --encoding UTF8"):
        store.read("user:1")
    store.close()


def test_a_database_whose_transactions_are_serializable_by_default_keeps_the_laws() -> None:
    server = shared_server()
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute("DROP DATABASE IF EXISTS strict")
        con.execute("CREATE DATABASE strict")
        con.execute("ALTER DATABASE strict SET default_transaction_isolation = 'serializable'")
    for option in ("", "?prepare=0"):
        store = open_store(server.url_of(database="strict") + option, project=f"p{option[1:]}")
        store.set_budget("user:1", Budget(100))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _, s=store: s.reserve(hold(10)), range(16)))
        assert sum(isinstance(answer, Granted) for answer in answers) == 10
        store.close()


def test_a_session_that_may_only_read_is_told_to_name_the_primary(url: str) -> None:
    store = open_store(url, project="p")
    store.set_budget("user:1", Budget(100))
    store.close()
    standby = open_store(f"{url}&options=-cdefault_transaction_read_only%3Don", project="p")
    with pytest.raises(StoreError, match=r"read-only standby: name the primary.*25006"):
        standby.reserve(hold())
    assert money(standby) == (0, 0)
    standby.close()


# What errors say


def test_errors_of_connecting_say_what_to_do_and_never_the_password() -> None:
    server = shared_server()
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute("DROP ROLE IF EXISTS with_password")
        con.execute("CREATE ROLE with_password LOGIN PASSWORD 'right-secret'")
    wrong = server.url_of(user="with_password", password="wrong-secret")
    cases = {
        wrong: "the user or the password is wrong",
        server.url_of(user="with_password"): "it wants a password",
        server.url_of(database="nowhere"): "there is no such database or role",
        server.url_of(user="nobody_at_all"): "there is no such database or role",
        f"{server.url}?sslmode=require": "TLS failed",
        "postgresql://u:top-secret@127.0.0.1:1/d": "is it running, and at that address",
        "postgresql://u:top-secret@no-such-host.invalid/d": "there is no host of that name",
        "postgresql:///d?host=/nowhere/at/all": "is it running, and at that address",
    }
    for url, text in cases.items():
        store = open_store(url, project="p")
        began = time.monotonic()
        with pytest.raises(StoreError, match=text) as raised:
            store.read("user:1")
        assert time.monotonic() - began < 4
        assert raised.value.__cause__ is not None
        assert "secret" not in f"{raised.value} {raised.value.__cause__!r} {raised.value.to_dict()}"
        store.close()


def test_a_server_with_too_many_clients_says_so() -> None:
    server = shared_server()
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute("DROP ROLE IF EXISTS few")
        con.execute("CREATE ROLE few LOGIN CONNECTION LIMIT 0")
    store = open_store(server.url_of(user="few"), project="p")
    with pytest.raises(StoreError, match="too many connections"):
        store.read("user:1")
    store.close()


def test_a_schema_that_is_dropped_under_a_store_is_told(url: str) -> None:
    store = open_store(url, project="p")
    store.set_budget("user:1", Budget(100))
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        con.execute(f"DROP SCHEMA {schema_of(url)} CASCADE")
    with pytest.raises(StoreError, match=r"gone.*: run `budgetguard migrate"):
        store.reserve(hold())
    store.close()


# Much


@pytest.mark.full
def test_a_thousand_holds_that_expiry_at_once_are_booked_at_once(url: str) -> None:
    clock = FakeClock()
    store = open_store(url, project="p", clock=clock)
    store.set_budget("user:1", Budget(10**9))
    store.set_budget("project:p", Budget(10**9))
    for _ in range(1_000):
        store.reserve(hold(2, "user:1", "project:p", ttl=1_000))
    assert len(list(store.holds())) == 1_000
    clock.advance(2)
    assert money(store, "project:p") == (2_000, 0)
    balance = store.read("user:1")
    assert balance is not None
    assert (balance.spent_nanos, balance.held_nanos, balance.expiries) == (2_000, 0, 1_000)
    store.close()


@contextmanager
def _locking(url: str, account: str) -> Iterator[psycopg.Connection[Any]]:
    """Hold a lock on an account from outside."""
    with psycopg.connect(url.partition("?")[0]) as con:
        con.execute(f"SELECT 1 FROM {schema_of(url)}.accounts WHERE name = %s FOR UPDATE", [account])
        yield con
        con.rollback()


def _wait_for_a_lock(asked: Future[Any]) -> None:
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        while not con.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert not asked.done(), asked.result()
            time.sleep(0.005)


def _is_asleep() -> bool:
    with psycopg.connect(shared_server().url) as con:
        return bool(con.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone())


def _end_all_sessions(schema: str) -> None:
    """End the sessions whose last statement was one of a store's."""
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        con.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND application_name = 'budgetguard' AND query LIKE %s",
            [f"%{schema}%"],
        )


# Functions of others


def test_a_function_that_somebody_else_made_on_the_path_does_not_run_in_ours() -> None:
    server = shared_server()
    url = fresh_url(server)
    schema = url.partition("schema=")[2]
    with psycopg.connect(server.url, autocommit=True) as con:
        con.execute(f"CREATE SCHEMA evil_{schema}")
        con.execute(f"CREATE TABLE evil_{schema}.loot (who text)")
        con.execute(
            f"CREATE FUNCTION evil_{schema}.array_position(text[], text) RETURNS integer LANGUAGE plpgsql AS "
            f"$$ BEGIN INSERT INTO evil_{schema}.loot VALUES (current_user); "
            "RETURN pg_catalog.array_position($1, $2); END $$"
        )
        store = open_store(f"{url}&prepare=0&options=-csearch_path%3Devil_{schema}", project="p")
        store.set_budget("user:1", Budget(100))
        call = hold(10)
        assert isinstance(store.reserve(call), Granted)
        store.settle(call, Settlement(5))
        store.close()
        assert con.execute(f"SELECT count(*) FROM evil_{schema}.loot").fetchone() == (0,)
        assert _functions_with_any_path(con, schema) == []
        con.execute(f"DROP SCHEMA evil_{schema} CASCADE")


def test_a_schema_of_an_older_version_gets_what_it_lacks_with_the_rights_that_others_had(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(url, project="p")
    store.set_budget("user:1", Budget(100))
    store.close()
    schema = schema_of(url)
    role = f"r{schema}"
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        con.execute(f"CREATE ROLE {role} LOGIN")
        con.execute(f"GRANT SELECT, INSERT ON {schema}.accounts TO {role}")
        later = (
            "CREATE TABLE @schema@.later (name text); CREATE FUNCTION @schema@.more() RETURNS integer "
            "LANGUAGE sql AS 'SELECT 1'; DROP FUNCTION @schema@.plus(bigint, bigint);"
        )
        known = postgres_schema._versions()
        monkeypatch.setattr(postgres_schema, "_versions", lambda: {**known, KNOWN + 1: later})
        store = open_store(url, project="p")
        assert store.read("user:1") is not None
        store.close()
        versions = [
            version for (version,) in con.execute(f"SELECT version FROM {schema}.versions ORDER BY 1")
        ]
        assert versions == [*range(1, KNOWN + 2)]
        has = "SELECT has_table_privilege(%s, %s, 'INSERT'), has_table_privilege(%s, %s, 'DELETE')"
        assert con.execute(has, [role, f"{schema}.later"] * 2).fetchone() == (True, False)
        assert con.execute(has, [role, f"{schema}.holds"] * 2).fetchone() == (True, False)
        assert _functions_with_any_path(con, schema) == []
        con.execute(f"DROP OWNED BY {role}")
        con.execute(f"DROP ROLE {role}")


def _functions_with_any_path(con: psycopg.Connection[Any], schema: str) -> list[Any]:
    return con.execute(
        "SELECT proname FROM pg_proc WHERE pronamespace = %s::regnamespace AND NOT coalesce("
        "array_to_string(proconfig, ' ') LIKE '%%search_path=pg_catalog, %%, pg_temp%%', false)",
        [schema],
    ).fetchall()


@pytest.mark.full
@pytest.mark.parametrize("schema", ["user", "order", "select"])
def test_a_schema_may_have_the_name_of_a_word_of_sql(own_server: PostgresServer, schema: str) -> None:
    store = PostgresStore(
        f"{own_server.url}?schema={schema}", project="p", clock=system_clock, retention="90d"
    )
    assert store.set_budget("user:1", Budget(100)).limit_nanos == 100
    assert isinstance(store.reserve(hold(10)), Granted)
    with psycopg.connect(own_server.url, autocommit=True) as con:
        con.execute(f"CREATE ROLE for_{schema} LOGIN")
        con.execute(store.grants().replace("ROLE_NAME", f"for_{schema}"))
    store.close()


@pytest.mark.full
def test_projects_of_one_process_share_their_connections(url: str) -> None:
    stores = [open_store(f"{url}&pool=3", project=f"p{number}") for number in range(20)]
    for store in stores:
        store.set_budget("user:1", Budget(1_000))
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda store: [store.reserve(hold(1)) for _ in range(5)], stores))
    assert all(isinstance(one, Granted) for answers in done for one in answers)
    (link,) = {store._link for store in stores if isinstance(store, PostgresStore)}
    assert 1 <= len(link._idle) <= 3
    stores[0].close()
    assert money(stores[1]) == (0, 5)
    assert money(stores[0]) == (0, 5)
    for store in stores:
        store.close()
