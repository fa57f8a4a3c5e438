"""Bad days of the disk store: files that are damaged, somebody else's, or gone, and clocks that jump."""

from __future__ import annotations

import itertools
import os
import pickle
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import diskcache
import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Charge, Granted, Hold, Settlement, new_hold_id
from budgetguard.errors import StoreError
from budgetguard.stores import Store, open_store
from budgetguard.testing.clock import FakeClock
from tests.bad_days.disk.opening import everything_in, in_a_process, make_hold, opened, spent

# Folders and files that are not what they should be


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX permissions")
def test_a_folder_that_may_not_be_written_is_a_store_error_that_says_so(folder: Path) -> None:
    for path in (folder, *folder.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in folder.parents:
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o055)
    answer = in_a_process(
        """
        import os, sys
        from budgetguard.errors import StoreError
        from budgetguard.stores import open_store, sqlite
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            open_store(f"disk://{sys.argv[1]}", project="p")
        except StoreError as error:
            print(error, "<-", type(error.__cause__).__name__)
        """,
        folder,
    )
    assert "it is read-only to this process: give it write access, or choose another folder" in answer
    assert answer.endswith("<- OperationalError")


def test_a_file_where_the_folder_should_be_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for place in (file, file / "below"):
        with pytest.raises(StoreError, match="there is a file where the folder should be"):
            opened(place)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_strangers_sqlite_database_is_left_alone(tmp_path: Path, mode: str) -> None:
    with closing(sqlite3.connect(tmp_path / "cache.db")) as con:
        con.execute(f"PRAGMA journal_mode = {mode}")
        con.execute("CREATE TABLE mine (x)")
        con.commit()
    before = everything_in(tmp_path)
    with pytest.raises(StoreError, match=r"another program's cache\.db.*a folder of its own"):
        opened(tmp_path)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("filled", [True, False])
def test_another_programs_diskcache_is_left_alone(tmp_path: Path, filled: bool) -> None:
    with diskcache.Cache(str(tmp_path), eviction_policy="least-recently-used", cull_limit=7) as cache:
        if filled:
            cache["mine"] = {"a": 1}
    before = everything_in(tmp_path)
    with pytest.raises(StoreError, match=r"another program's cache\.db.*nothing was changed"):
        opened(tmp_path)
    assert everything_in(tmp_path) == before
    with diskcache.Cache(str(tmp_path)) as cache:
        assert (cache.eviction_policy, cache.cull_limit) == ("least-recently-used", 7)


def test_garbage_in_place_of_the_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cache.db").write_bytes(b"garbage" * 1_000)
    before = everything_in(tmp_path)
    with pytest.raises(StoreError, match="move the folder away or restore it from a backup") as caught:
        opened(tmp_path)
    assert isinstance(caught.value.__cause__, sqlite3.DatabaseError)
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize("kept", [50, 512, 4_096, 9_000])
def test_a_truncated_database_is_a_store_error_and_never_an_empty_store(folder: Path, kept: int) -> None:
    os.truncate(folder / "cache.db", kept)

    def use() -> None:
        opened(folder).read("user:1")

    with pytest.raises(StoreError, match="is damaged"):
        use()


# The last one before this is brought up to date: see test_upgrade.
@pytest.mark.parametrize("step", [1, -2], ids=["newer", "older"])
def test_another_schema_is_left_alone(folder: Path, step: int) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        known = con.execute("PRAGMA user_version").fetchone()[0]
        con.execute(f"PRAGMA user_version = {known + step}")
    before = everything_in(folder)
    remedy = "update budgetguard" if step > 0 else "use the budgetguard that made it"
    told = f"schema {known + step}, and this budgetguard knows {known}: {remedy}, or give it another folder"
    with pytest.raises(StoreError, match=told):
        opened(folder)
    assert everything_in(folder) == before


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *itertools.product(
            ["limit", "spent", "held", "window", "opened", "crossed"],
            [pickle.dumps({"limit": 1}), b"7", "seven", 7.5, "", b""],
        ),
        ("timezone", pickle.dumps("UTC")),
        ("spent", None),
        ("crossed", "{}"),
    ],
    ids=repr,
)
def test_a_planted_value_is_refused_and_never_unpickled(folder: Path, column: str, value: object) -> None:
    plant(folder, "accounts", column, value)
    store = opened(folder)
    for verb in (
        lambda: store.read("user:1"),
        lambda: list(store.list()),
        lambda: store.set_budget("user:1", Budget(5)),
        lambda: store.reserve(make_hold()),
    ):
        with pytest.raises(StoreError, match="malformed row of account 'user:1'"):
            verb()
    store.set_budget("user:2", Budget(5))
    store.close()


@pytest.mark.parametrize("value", [pickle.dumps([]), b"[]", "[", '"x"', "7", 7])
@pytest.mark.parametrize("column", ["accounts", "epochs", "usage", "tags"])
def test_a_planted_hold_is_refused_and_never_unpickled(folder: Path, column: str, value: object) -> None:
    plant(folder, "hold", column, value)
    store = opened(folder)
    hold_id = hold_ids(folder)[0]
    with pytest.raises(StoreError, match=f"malformed row of hold '{hold_id}'"):
        list(store.calls())
    store.close()


def plant(folder: Path, table: str, column: str, value: object) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        assert con.execute(f'UPDATE {table} SET "{column}" = ?', (value,)).rowcount == 1
        con.commit()


def hold_ids(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        return [row[0] for row in con.execute("SELECT id FROM hold ORDER BY id")]


def test_a_name_that_is_no_text_is_refused(folder: Path) -> None:
    plant(folder, "hold", "model", b"\xff\xfe")
    store = opened(folder)
    with pytest.raises(StoreError, match="a name that is no text"):
        list(store.calls())
    plant(folder, "hold", "model", b"text that is stored as text")
    with pytest.raises(StoreError, match="a name that is no text"):
        list(store.calls())
    store.close()


def test_a_clock_that_jumps_back_leaves_records_and_accounts_usable(tmp_path: Path) -> None:
    clock = FakeClock()
    store = open_store(f"disk://{tmp_path}", project="p", clock=clock, retention="1d")
    store.set_budget("user:1", Budget(10**6, "daily"))
    hold = Hold(new_hold_id(clock()), (Charge("user:1"),), 10, 10, 60_000, clock(), "1", "m", "chat")
    store.reserve(hold)
    clock.advance(-10 * 365 * 86_400)
    store.settle(hold, Settlement(7))
    assert spent(store) == 7
    assert [(c.id, c.state, c.cost_nanos) for c in store.calls()] == [(hold.id, "settled", 7)]
    store.close()


# Sums beyond what a number can hold, and other damage to one account


def test_an_account_that_was_ruined_can_be_reset_and_deleted_and_the_others_are_listed(folder: Path) -> None:
    store = opened(folder)
    for user in (0, 2):
        store.set_budget(f"user:{user}", Budget(5))
    held = make_hold(10)
    assert isinstance(store.reserve(held), Granted)
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        # As sums past 2^63 became in the past.
        con.execute("UPDATE accounts SET spent = 1.8e19 WHERE name = 'user:1'")
        con.commit()
    told = "what it has of account 'user:1' is damaged: reset the account, or delete it"
    with pytest.raises(StoreError, match=told):
        store.read("user:1")
    listing = store.list()
    assert [next(listing).account for _ in range(2)] == ["user:0", "user:2"]
    with pytest.raises(StoreError, match=told):
        next(listing)
    mended = store.reset("user:1")
    assert mended is not None
    assert (mended.limit_nanos, mended.spent_nanos, mended.held_nanos) == (1_000, 0, 10)
    store.settle(held, Settlement(7))
    assert spent(store) == 7
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        con.execute("UPDATE accounts SET \"window\" = 'x', spent = 1e19 WHERE name = 'user:1'")
        con.commit()
    assert store.delete("user:1")
    assert [balance.account for balance in store.list()] == ["user:0", "user:2"]
    store.close()


@pytest.mark.parametrize(
    ("statement", "verb"),
    [
        ("UPDATE accounts SET timezone = CAST(x'ff41' AS TEXT)", lambda s: s.read("user:1")),
        ("UPDATE accounts SET duration = 'fortnightly', \"end\" = 5", lambda s: s.read("user:1")),
        ("UPDATE accounts SET \"end\" = 5, duration = 'daily', anchor = -9e18", lambda s: s.read("user:1")),
        ("UPDATE hold SET usage = replace(hex(zeroblob(50000)), '00', '[')", lambda s: list(s.calls())),
        ("UPDATE hold SET accounts = '[1]'", lambda s: list(s.calls())),
        ("UPDATE hold SET model = CAST(x'ff41' AS TEXT)", lambda s: list(s.calls())),
    ],
)
def test_whatever_python_raises_over_a_damaged_file_is_a_store_error(
    folder: Path, statement: str, verb: Callable[[Store], object]
) -> None:
    with closing(sqlite3.connect(folder / "cache.db")) as con:
        con.execute(statement)
        con.commit()
    store = opened(folder)
    with pytest.raises(StoreError, match="damaged"):
        verb(store)
    store.set_budget("user:2", Budget(5))
    store.close()


# A folder that goes away


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be deleted there")
@pytest.mark.parametrize("anew", [False, True])
def test_a_folder_that_is_deleted_while_open_is_noticed(folder: Path, tmp_path: Path, anew: bool) -> None:
    store = opened(folder)
    kept = tmp_path / "kept"
    folder.rename(kept)
    if anew:
        other = opened(folder)
        other.set_budget("user:1", Budget(10**9))
        other.close()
    hold = make_hold()
    for verb in (
        lambda: store.reserve(hold),
        lambda: store.settle(hold, Settlement(5)),
        lambda: store.read("user:1"),
        lambda: list(store.list()),
    ):
        with pytest.raises(StoreError, match="was deleted or replaced while this program used it"):
            verb()
    store.close()
    with pytest.raises(StoreError, match="was deleted or replaced"):
        store.read("user:1")
    assert folder.exists() is anew
    if not anew:
        kept.rename(folder)
        assert spent(store) == 5
    store.close()
