"""A database of version 1, made and used by the functions of version 1, is brought up to date and goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from budgetguard.core.accounts import Budget, Document, Grant
from budgetguard.core.holds import Booked, Charge, Denied, Granted, Hold, Outdated, Settlement
from budgetguard.core.trail import entry_of
from budgetguard.errors import StoreError
from budgetguard.stores import open_store, postgres_schema
from budgetguard.stores.base import Transfer
from budgetguard.stores.postgres import PostgresStore
from budgetguard.stores.verifying import verify
from budgetguard.testing.clock import FakeClock
from tests.cli.helpers import run_here
from tests.servers.postgres import fresh_url, shared_server

HOUR = 3_600_000
KEPT = {
    # Functions that answer what they did, or that only other functions call.
    ("attach", 4), ("observed", 2), ("projects", 2), ("instant", 2), ("frozen_note", 1), ("freeze", 2),
    ("swept_to", 1), ("sweep", 4), ("export_models", 3),
    ("present_ms", 1), ("plus", 2), ("book", 3), ("lock_accounts", 2), ("unmake_accounts", 2), ("observe", 4),
    ("balance", 1), ("record", 1), ("catch_up", 7), ("expire", 3), ("clear", 2),
    ("windows", 1), ("make_accounts", 3),
}  # fmt: skip


class OldDatabase:
    """A schema of version 1, and its functions as that version's client calls them."""

    def __init__(self, url: str, clock: FakeClock) -> None:
        self.url = url
        self.schema = url.partition("schema=")[2]
        self.clock = clock
        self.connection = psycopg.connect(shared_server().url, autocommit=True)

    def call(self, verb: str, *arguments: Any) -> Any:
        places = ", ".join(["%s"] * (len(arguments) + 1))
        statement = f"SELECT {self.schema}.{verb}({places})"
        ((answer,),) = self.connection.execute(statement.encode(), ["p", *arguments]).fetchall()
        return answer

    def set_budget(self, account: str, limit: int | None, duration: str | None = None) -> None:
        now = self.clock()
        window = {"anchor": now, "fresh": True, "start": now, "end": now + HOUR if duration else None}
        told = (limit, duration, "UTC", None, False, 7, now, [], json.dumps(window))
        assert "balance" in self.call("set_budget", account, *told)

    def reserve(self, ident: str, accounts: Sequence[str], amount: int, ttl: int = HOUR) -> None:
        flags = [1] * len(accounts)
        limits = [None] * len(accounts)
        hold = (amount, amount, ttl, self.clock(), "1", "m", "chat", ["t"])
        answer = self.call(
            "reserve", ident, list(accounts), flags, limits, *hold, self.clock(), [], "[]", None
        )
        assert answer["granted"] == list(accounts)

    def settle(self, ident: str, accounts: Sequence[str], cost: int, state: str = "settled") -> None:
        hold = (0, 0, 1, self.clock(), "1", "m", "chat", [])
        ended = (state, cost, "answered", "r", '{"output_tokens": 3}', [50, 100], ["m"], ["3"], 1_000)
        flags = [1] * len(accounts)
        answer = self.call(
            "settle", ident, list(accounts), flags, *hold, *ended, self.clock(), [], "[]", None
        )
        assert answer["settled"] == cost

    def rows(self, table: str) -> list[dict[str, Any]]:
        found = self.connection.execute(
            f"SELECT to_jsonb(t) FROM {self.schema}.{table} t ORDER BY 1".encode()
        )
        return [row for (row,) in found]

    def signatures(self) -> set[tuple[str, int]]:
        found = self.connection.execute(
            "SELECT proname, pronargs FROM pg_proc WHERE pronamespace = %s::regnamespace", [self.schema]
        )
        return {(name, int(arguments)) for name, arguments in found}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def old(clock: FakeClock) -> Iterator[OldDatabase]:
    url = fresh_url(shared_server())
    first = {1: postgres_schema._versions()[1]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_schema, "_versions", lambda: first)
        maker = PostgresStore(url, project="p", clock=clock, retention="90d")
        assert maker.migrate() == (0, 1)
    database = OldDatabase(url, clock)
    yield database
    database.connection.close()


def ident(number: int) -> str:
    return f"{FakeClock()():012x}{number:020x}"


def used(old: OldDatabase) -> None:
    """Leave budgets, and holds in every state."""
    old.set_budget("user:1", 1_000, "hourly")
    old.set_budget("project:p", None)
    both = ["user:1", "project:p"]
    old.reserve(ident(1), both, 100)
    old.settle(ident(1), both, 60)
    old.reserve(ident(2), both, 100)
    old.settle(ident(2), both, 0, "voided")
    old.reserve(ident(3), both, 30, ttl=1_000)  # it will have expired, and nobody has looked
    old.reserve(ident(4), both, 200)
    old.reserve(ident(5), ["user:1"], 5, ttl=10)
    old.clock.advance(0.5)
    assert old.call("read", "user:1", old.clock(), [], "[]")["balance"]["expiries"] == 1
    assert old.call("attach", ident(4), b"\x01" * 32, "r4") is True


def money(store: PostgresStore, account: str) -> tuple[int, int, int, int]:
    balance = store.read(account)
    assert balance is not None
    return balance.spent_nanos, balance.held_nanos, balance.expired_nanos, balance.open_holds


def test_a_database_of_version_1_goes_on_with_the_same_balances(old: OldDatabase, clock: FakeClock) -> None:
    used(old)
    before = {table: old.rows(table) for table in ("accounts", "holds", "charges", "answers", "observations")}
    assert {row["state"] for row in before["holds"]} == {"held", "settled", "voided", "expired"}
    store = PostgresStore(old.url, project="p", clock=clock, retention="90d")
    assert store.migrate() == (1, max(postgres_schema._versions()))
    for table, rows in before.items():
        now = old.rows(table)
        assert [{name: row[name] for name in rows[0]} for row in now] == rows
    assert money(store, "user:1") == (65, 230, 5, 2)
    assert verify(store).differences == ()
    clock.advance(1)
    assert money(store, "user:1") == (95, 200, 35, 1)
    assert money(store, "project:p") == (90, 200, 30, 1)
    late = Hold(ident(3), (Charge("user:1"),), 30, 30, 1_000, clock())
    assert store.settle(late, Settlement(10)) == Booked(10, late=True)
    assert money(store, "user:1") == (75, 200, 5, 1)
    open_one = Hold(ident(4), (Charge("user:1"), Charge("project:p")), 200, 200, HOUR, clock())
    assert isinstance(store.reserve(open_one), Granted)
    booked = store.settle(open_one, Settlement(500, thresholds=(50, 100)))
    assert isinstance(booked, Booked)
    assert [(one.account, one.threshold) for one in booked.crossings] == [("user:1", 50)]
    assert [call.state for call in store.calls()] == ["settled", "voided", "settled", "settled", "expired"]
    assert verify(store).differences == ()
    clock.advance(3_600)
    assert money(store, "user:1") == (0, 0, 0, 0)
    store.close()


def test_budgets_of_version_1_take_all_that_is_new(old: OldDatabase, clock: FakeClock) -> None:
    used(old)
    store = PostgresStore(old.url, project="p", clock=clock, retention="90d")
    entry = entry_of(clock(), "grant", "user:1", by="me")
    raised = store.grant("user:1", Grant("g", 50, clock() + 10), entry=entry)
    assert raised is not None
    assert (raised.limit_nanos, raised.document) == (1_050, Document())
    assert list(store.trail()) == [entry]
    assert store.set_budget("user:1", Budget(1_000, "hourly", rollover=400)).limit_nanos == 1_050
    assert store.mark("user:1", 0)
    assert store.save_scopes(Document(3, "text"), 0)
    store.set_budget("labels:@unit=requests&user=1", Budget(1))
    charges = (Charge("user:1"), Charge("labels:@unit=requests&user=1"))
    call = Hold(ident(6), charges, 10, 10, HOUR, clock(), units={"requests": (1, 1)}, labels={"team": "x"})
    assert store.reserve(call) == Outdated(Document(3, "text"))
    store.save_scopes(Document(), 3)
    assert isinstance(store.reserve(call), Granted)
    assert isinstance(
        store.reserve(Hold(ident(7), charges, 1, 1, 1, clock(), units={"requests": (1, 1)})), Denied
    )
    store.settle(call, Settlement(4))
    clock.advance(3_600)  # the hold of 200 is over as well as the window, of which 1000 - 69 - 230 were left
    rolled = store.read("user:1")
    assert rolled is not None
    assert (rolled.limit_nanos, rolled.spent_nanos) == (1_400, 0)
    assert verify(store).differences == ()
    store.close()


def test_migrate_says_what_it_did(old: OldDatabase) -> None:
    done = run_here("migrate", "--store", old.url, "--json").object
    assert (done["action"], done["before"], done["after"]) == ("migrated", 1, 2)
    assert run_here("migrate", "--store", old.url, "--json").object["action"] == "none"


def test_a_role_that_may_not_migrate_is_told_what_to_run_and_can_go_on_afterwards(
    old: OldDatabase, clock: FakeClock
) -> None:
    used(old)
    role = f"app_{old.schema}"
    con = old.connection
    con.execute(f"CREATE ROLE {role} LOGIN".encode())
    owner = PostgresStore(old.url, project="p", clock=clock, retention="90d")
    con.execute(owner.grants().replace("ROLE_NAME", role).encode())
    theirs = PostgresStore(old.url.replace("owner@", f"{role}@"), project="p", clock=clock, retention="90d")
    told = r"cannot update the schema .* to version 2: this role may not. Run `budgetguard migrate --store"
    with pytest.raises(StoreError, match=told):
        theirs.read("user:1")
    assert old.call("read", "user:1", clock(), [], "[]")["balance"]["held_nanos"] == 230
    assert owner.migrate() == (1, 2)
    assert money(theirs, "user:1") == (65, 230, 5, 2)
    assert theirs.save_scopes(Document(3, "text"), 0, entry=entry_of(clock(), "x", "", by="me"))
    assert isinstance(theirs, Transfer)
    assert verify(theirs).differences == ()
    con.execute(f"DROP OWNED BY {role}".encode())
    con.execute(f"DROP ROLE {role}".encode())


def test_a_client_of_version_1_finds_nothing_that_would_answer_otherwise(
    old: OldDatabase, clock: FakeClock
) -> None:
    used(old)
    known = old.signatures()
    old.connection.prepare_threshold = 0  # as that client does: it has asked before
    old.call("read", "user:1", clock(), [], "[]")
    store = PostgresStore(old.url, project="p", clock=clock, retention="90d")
    store.migrate()
    assert known & old.signatures() == KEPT
    with pytest.raises(psycopg.errors.UndefinedFunction):
        old.call("read", "user:1", clock(), [], "[]")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        old.settle(ident(4), ["user:1", "project:p"], 1)


def test_what_a_verb_of_version_1_is_about_to_store_is_waited_for(old: OldDatabase, clock: FakeClock) -> None:
    used(old)
    store = PostgresStore(old.url, project="p", clock=clock, retention="90d")
    with ThreadPoolExecutor(1) as pool:
        with old.connection.transaction():
            old.reserve(ident(8), ["user:1"], 7)
            migrating = pool.submit(store.migrate)
            _wait_for_a_lock(migrating)
        assert migrating.result() == (1, 2)
    assert money(store, "user:1") == (65, 237, 5, 3)
    store.close()


def test_a_migration_that_fails_leaves_version_1_as_it_was(
    old: OldDatabase, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    used(old)
    versions = postgres_schema._versions()
    broken = {**versions, 2: versions[2] + "SELECT 1 / 0;"}
    store = open_store(old.url, project="p", clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(postgres_schema, "_versions", lambda: broken)
        with pytest.raises(StoreError, match="division by zero"):
            store.read("user:1")
    assert old.call("read", "user:1", clock(), [], "[]")["balance"]["held_nanos"] == 230
    assert store.read("user:1") is not None
    store.close()


def _wait_for_a_lock(asked: Future[Any]) -> None:
    with psycopg.connect(shared_server().url, autocommit=True) as con:
        while not con.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert not asked.done(), asked.result()
            time.sleep(0.005)
