"""A disk store that the previous version wrote, schema 6, is brought up to date as it is opened."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from budgetguard.core.accounts import Balance, Budget, Document, Grant
from budgetguard.core.holds import Booked, Charge, Granted, Hold, Settlement
from budgetguard.core.usage import Usage
from budgetguard.stores import Store, open_store
from budgetguard.stores.base import Transfer
from budgetguard.stores.sqlite_tables import UPGRADES
from budgetguard.stores.verifying import verify
from budgetguard.testing.clock import DEFAULT_START, FakeClock

# What version 6 made, statement for statement.
SCHEMA_6: Final = """
CREATE TABLE project (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, swept TEXT NOT NULL DEFAULT '', frozen TEXT);
CREATE TABLE account (project INTEGER NOT NULL, name TEXT NOT NULL, "limit" INTEGER DEFAULT NULL, "duration" TEXT DEFAULT NULL, "timezone" TEXT DEFAULT NULL, "anchor" INTEGER DEFAULT NULL, "created" INTEGER DEFAULT NULL, "ephemeral" INTEGER DEFAULT NULL, "start" INTEGER DEFAULT NULL, "end" INTEGER DEFAULT NULL, "window" INTEGER DEFAULT NULL, "epoch" INTEGER DEFAULT NULL, "spent" INTEGER DEFAULT NULL, "expired" INTEGER DEFAULT NULL, "expiries" INTEGER DEFAULT NULL, "models" TEXT DEFAULT NULL, "crossed" TEXT DEFAULT NULL, "held" INTEGER DEFAULT NULL, "opened" INTEGER DEFAULT NULL, "due" INTEGER DEFAULT NULL, "updated" INTEGER DEFAULT NULL, PRIMARY KEY (project, name)) WITHOUT ROWID;
CREATE INDEX account_idle ON account (project, created) WHERE ephemeral = 1;
CREATE TABLE hold (project INTEGER NOT NULL, open INTEGER NOT NULL, id TEXT NOT NULL, "amount" INTEGER DEFAULT NULL, "on_expiry" INTEGER DEFAULT NULL, "created" INTEGER DEFAULT NULL, "expires" INTEGER DEFAULT NULL, "user" TEXT DEFAULT NULL, "model" TEXT DEFAULT NULL, "endpoint" TEXT DEFAULT NULL, "tags" TEXT DEFAULT NULL, "accounts" TEXT DEFAULT NULL, "state" TEXT DEFAULT 'held', "epochs" TEXT DEFAULT '{}', "cost" INTEGER DEFAULT 0, "ended" INTEGER DEFAULT NULL, "outcome" TEXT DEFAULT NULL, "request_id" TEXT DEFAULT NULL, "usage" TEXT DEFAULT '{}', PRIMARY KEY (project, open, id)) WITHOUT ROWID;
CREATE TABLE answer (project INTEGER NOT NULL, request_id NOT NULL, hold TEXT NOT NULL, PRIMARY KEY (project, request_id)) WITHOUT ROWID;
CREATE INDEX answer_hold ON answer (project, hold);
CREATE TABLE observation (project INTEGER NOT NULL, model NOT NULL, counts TEXT NOT NULL, PRIMARY KEY (project, model)) WITHOUT ROWID;
"""  # noqa: E501
UPDATE_HOLDING_6: Final = (
    'UPDATE account SET "held" = ?, "opened" = ?, "due" = ?, "updated" = ? WHERE project = ? AND name = ?'
)
INSERT_OPEN_HOLD_6: Final = (
    'INSERT OR REPLACE INTO hold (project, open, id, "amount", "on_expiry", "created", "expires", "user", '
    '"model", "endpoint", "tags", "accounts", request_id) VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
)

# What it wrote of a call that was settled, one that expired, one under way, and one that was voided; of a
# user with a daily budget, a project without a limit, and a run.
AT: Final = DEFAULT_START
_SETTLED, _LOST = "019b76daa80000000000000000000001", "019b76daa80000000000000000000002"
_UNDER_WAY, _VOIDED = "019b76db926000000000000000000003", "019b76db926000000000000000000004"
_MODELS = '{"gpt-4o":20,"m\\udcff":40}'
_TWO = '{"user:1":27999619981727,"project:p":95544863973630}'
_ONE = '{"user:1":27999619981727}'
_THREE = '{"user:1":27999619981727,"project:p":95544863973630,"run:1":50224642189961}'
_LAST = AT + 60_000
ROWS_6: Final[dict[str, list[tuple[object, ...]]]] = {
    "project": [(1, "p", "", None)],
    "account": [
        (1, "project:p", None, None, "UTC", AT, AT, 0, AT, None, 95544863973630, 95544863973630,
         60, 40, 1, _MODELS, "[]", 100, 1, AT + 3_660_000, _LAST),
        (1, "run:1", 500, None, "UTC", _LAST, _LAST, 1, _LAST, None, 50224642189961, 50224642189961,
         0, 0, 0, "{}", "[]", 100, 1, AT + 3_660_000, _LAST),
        (1, "user:1", 1000, "daily", "UTC", AT, AT, 0, AT, AT + 86_400_000, 27999619981727, 27999619981727,
         60, 40, 1, _MODELS, "[1]", 100, 1, AT + 120_000, _LAST),
    ],
    "hold": [
        (1, 0, _SETTLED, 30, 30, AT, _LAST, "1", "gpt-4o", "chat", '["tag"]', _TWO, "settled", _TWO, 20, AT,
         "answered", "r1", '{"input_tokens":5,"output_tokens":6}'),
        (1, 0, _LOST, 50, 40, AT, _LAST, "1", b"m\xed\xb3\xbf", "chat", '["tag"]', _TWO, "expired", _TWO, 40,
         _LAST, "unknown", "resp_lost", "{}"),
        (1, 0, _VOIDED, 5, 5, _LAST, _LAST + 60_000, "1", "gpt-4o", "chat", '["tag"]', _ONE, "voided", _ONE,
         0, _LAST, "failed", None, "{}"),
        (1, 1, _UNDER_WAY, 100, 70, _LAST, AT + 3_660_000, "1", "gpt-4o", "chat", '["tag"]', _THREE, "held",
         "{}", 0, None, None, "resp_open", "{}"),
    ],
    "answer": [(1, "resp_lost", _LOST), (1, "resp_open", _UNDER_WAY)],
    "observation": [(1, "gpt-4o", '{"11":1}')],
}  # fmt: skip


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return the folder of a store as version 6 left it."""
    folder = tmp_path / "store"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as con:
        con.execute("PRAGMA page_size = 2048")
        con.execute("PRAGMA journal_mode = WAL")
        con.execute(f"PRAGMA application_id = {int.from_bytes(b'BGrd')}")
        con.execute("PRAGMA user_version = 6")
        con.executescript(SCHEMA_6)
        for table, rows in ROWS_6.items():
            for row in rows:
                con.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    return folder


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(_LAST)


@pytest.fixture
def store(old: Path, clock: FakeClock) -> Iterator[Store]:
    """Return it, opened."""
    store = open_store(f"disk://{old}", project="p", clock=clock)
    yield store
    store.close()


def schema_of(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        version: int = con.execute("PRAGMA user_version").fetchone()[0]
    return version


def tables_of(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        return {row[0] for row in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def hold(clock: FakeClock, number: int, *accounts: str, amount: int = 10) -> Hold:
    charges = tuple(Charge(name) for name in accounts or ("user:1", "project:p"))
    ident = f"{clock():012x}{number + 100:020x}"
    return Hold(ident, charges, amount, amount, 60_000, clock(), "1", "gpt-4o", "chat")


def numbers(balance: Balance) -> tuple[object, ...]:
    return (
        balance.account, balance.limit_nanos, balance.spent_nanos, balance.held_nanos, balance.expired_nanos,
        balance.expiries, balance.open_holds, balance.duration, balance.starts_ms, balance.resets_ms,
        balance.created_ms, balance.updated_ms, dict(balance.models),
    )  # fmt: skip


WAS: Final = [
    ("project:p", None, 60, 100, 40, 1, 1, None, AT, None, AT, _LAST, {"gpt-4o": 20, "m\udcff": 40}),
    ("run:1", 500, 0, 100, 0, 0, 1, None, _LAST, None, _LAST, _LAST, {}),
    ("user:1", 1000, 60, 100, 40, 1, 1, "daily", AT, AT + 86_400_000, AT, _LAST,
     {"gpt-4o": 20, "m\udcff": 40}),
]  # fmt: skip


def test_balances_and_records_are_what_they_were(store: Store, old: Path) -> None:
    assert [numbers(balance) for balance in store.list()] == WAS
    for balance in store.list():
        assert (balance.grants, balance.rolling, balance.frees) == ((), False, ())
        assert (balance.rollover_nanos, balance.document) == (0, Document())
    found = {record.id: record for record in store.calls()}
    states = [(_SETTLED, "settled"), (_LOST, "expired"), (_UNDER_WAY, "held"), (_VOIDED, "voided")]
    assert [(ident, record.state) for ident, record in found.items()] == states
    one = found[_SETTLED]
    assert (one.amount_nanos, one.cost_nanos, one.tags, one.request_id) == (30, 20, ("tag",), "r1")
    assert one.usage == Usage.of(input_tokens=5, output_tokens=6)
    assert (one.units, one.labels, one.shadowed) == ({}, {}, ())
    assert found[_LOST].model == "m\udcff"
    assert [record.id for record in store.holds("user:1")] == [_UNDER_WAY]
    assert store.observations("gpt-4o") != {}
    assert (store.scopes(), list(store.trail())) == (Document(), [])
    assert isinstance(store, Transfer)
    assert verify(store)
    assert schema_of(old) == 7


def test_calls_go_on(store: Store, clock: FakeClock) -> None:
    waiting = store.attached("resp_open")
    assert waiting is not None
    assert waiting.id == _UNDER_WAY
    ended = [Hold(ident, (), 0, 0, 0, 0) for ident in (_UNDER_WAY, _LOST, _SETTLED)]
    answers = [store.settle(one, Settlement(30)) for one in ended]
    assert [(answer.late, answer.repeated) for answer in answers if isinstance(answer, Booked)] == [
        (False, False), (True, False), (False, True),
    ]  # fmt: skip
    assert [(one.spent_nanos, one.held_nanos, one.expiries) for one in store.list()] == [
        (80, 0, 0), (30, 0, 0), (80, 0, 0),
    ]  # fmt: skip
    call = hold(clock, 1)
    assert store.reserve(call) == Granted(("user:1", "project:p"))
    answer = store.settle(call, Settlement(7, thresholds=(1, 5)))
    assert isinstance(answer, Booked)
    assert [(one.account, one.threshold) for one in answer.crossings] == [
        ("user:1", 5)
    ]  # 1 % was told before
    clock.advance(86_400)
    assert [(one.account, one.spent_nanos) for one in store.list("user")] == [("user:1", 0)]
    assert isinstance(store, Transfer)
    assert verify(store)


def test_what_is_new_can_be_used_on_what_is_old(store: Store, clock: FakeClock) -> None:
    balance = store.grant("user:1", Grant("g", 500, clock() + 60_000))
    assert balance is not None
    assert balance.limit_nanos == 1_500
    store.set_budget("user:1", Budget(1_000, "daily", rollover=50))
    assert store.mark("user:1", 0)
    tokens = "labels:@unit=tokens&user=1"
    store.set_budget(tokens, Budget(10))
    call = replace(hold(clock, 1, "user:1", tokens), units={"tokens": (4, 4)})
    assert isinstance(store.reserve(call), Granted)
    assert store.save_scopes(Document(3, "[]"), 0)
    clock.advance(86_400)
    user = store.read("user:1")
    assert user is not None
    assert user.limit_nanos == 1_050
    assert isinstance(store, Transfer)
    assert verify(store)


def test_a_store_that_was_claimed_and_never_used_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as con:
        con.execute(f"PRAGMA application_id = {int.from_bytes(b'BGrd')}")
        con.execute("PRAGMA user_version = 6")
    store = open_store(f"disk://{tmp_path}", project="p")
    store.set_budget("user:1", Budget(5))
    store.close()
    assert (schema_of(tmp_path), "account" in tables_of(tmp_path)) == (7, False)


OPEN_AND_CALL: Final = """
    import sys, time
    from budgetguard.core.holds import Charge, Granted, Hold, Settlement, new_hold_id
    from budgetguard.stores import open_store
    print("ready", flush=True)
    sys.stdin.readline()
    store = open_store(f"disk://{sys.argv[1]}", project="p")
    now = time.time_ns() // 10**6
    hold = Hold(new_hold_id(now), (Charge("project:p"),), 1, 1, 60_000, now)
    assert isinstance(store.reserve(hold), Granted)
    store.settle(hold, Settlement(1))
    store.close()
"""


def test_several_processes_and_threads_that_open_it_at_once_bring_it_up_to_date_once(old: Path) -> None:
    program = [sys.executable, "-c", textwrap.dedent(OPEN_AND_CALL), str(old)]
    pipe = subprocess.PIPE
    running = [subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(3)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    together = threading.Barrier(4)

    def call(number: int) -> None:
        together.wait(60)
        store = open_store(f"disk://{old}", project="p", clock=FakeClock(_LAST))
        one = hold(FakeClock(_LAST), number, "project:p")
        assert isinstance(store.reserve(one), Granted)
        store.settle(one, Settlement(1))
        store.close()

    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    for process in running:
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, "")
    store = open_store(f"disk://{old}", project="p")
    balance = store.read("project:p")
    assert balance is not None
    # The call that was under way has expired by the processes' clock: 70 Nanos.
    assert (balance.spent_nanos, balance.held_nanos) == (60 + 70 + 7, 0)
    assert isinstance(store, Transfer)
    assert verify(store)
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals there")
@pytest.mark.parametrize("made", [1, 4, len(UPGRADES[6])])
def test_a_process_that_is_killed_in_the_middle_leaves_it_as_it_was(
    old: Path, clock: FakeClock, made: int
) -> None:
    code = """
        import os, signal, sys
        from budgetguard.stores import open_store, sqlite_file

        class Deadly(tuple):
            def __iter__(self):
                yield from list(tuple.__iter__(self))[: int(sys.argv[2])]
                os.kill(os.getpid(), signal.SIGKILL)

        sqlite_file.UPGRADES = {6: Deadly(sqlite_file.UPGRADES[6])}
        open_store(f"disk://{sys.argv[1]}", project="p")
    """
    program = [sys.executable, "-c", textwrap.dedent(code), str(old), str(made)]
    assert subprocess.run(program, timeout=60).returncode == -signal.SIGKILL
    assert (schema_of(old), {"account", "accounts"} & tables_of(old)) == (6, {"account"})
    store = open_store(f"disk://{old}", project="p", clock=clock)
    assert [numbers(balance) for balance in store.list()] == WAS
    assert isinstance(store.reserve(hold(clock, 1)), Granted)
    store.close()
    assert (schema_of(old), {"account", "accounts"} & tables_of(old)) == (7, {"accounts"})


def test_a_process_of_the_previous_version_that_still_has_it_open_can_write_nothing(
    old: Path, clock: FakeClock
) -> None:
    with closing(sqlite3.connect(old / "cache.db", isolation_level=None)) as con:
        con.execute("SELECT spent FROM account").fetchall()
        store = open_store(f"disk://{old}", project="p", clock=clock)
        assert isinstance(store.reserve(hold(clock, 1)), Granted)
        before = list(store.list()), list(store.calls())
        # A hold, as it reserved one: the hold's row, then the account's.
        con.execute("BEGIN IMMEDIATE")
        row = (
            1,
            f"{AT:032x}",
            10,
            10,
            AT,
            AT + 9**9,
            "1",
            "m",
            "chat",
            "[]",
            '{"user:1":27999619981727}',
            None,
        )
        con.execute(INSERT_OPEN_HOLD_6, row)
        with pytest.raises(sqlite3.OperationalError, match="no such table: account"):
            con.execute(UPDATE_HOLDING_6, (110, 2, 0, AT, 1, "user:1"))
        con.execute("ROLLBACK")
        with pytest.raises(sqlite3.OperationalError, match="no such table: account"):
            con.execute("SELECT spent FROM account")
        assert (list(store.list()), list(store.calls())) == before
        store.close()
