"""Bad days of the disk store: the disk is full, or the database locked."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from budgetguard.core.accounts import Budget
from budgetguard.core.holds import Granted, Settlement
from budgetguard.errors import StoreError
from budgetguard.stores.sqlite import DiskStore
from tests.bad_days.disk.opening import connection, in_a_process, make_hold, opened, spend, spent

# A disk that is full


def test_a_full_disk_is_a_store_error_changes_nothing_and_heals_by_itself(tmp_path: Path) -> None:
    answer = in_a_process(
        """
        import os, resource, signal, sys
        from budgetguard.core.accounts import Budget
        from budgetguard.errors import StoreError
        from budgetguard.core.holds import *
        from budgetguard.stores import open_store
        from budgetguard.core.process import system_clock

        def call():
            now = system_clock()
            hold = Hold(new_hold_id(now), (Charge("user:1"),), 10, 10, 10**6, now, "1", "m" * 2000, "chat")
            answer = store.reserve(hold)
            assert isinstance(answer, Granted), answer
            store.settle(hold, Settlement(10))

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = open_store(f"disk://{sys.argv[1]}/store", project="p")
        store.set_budget("user:1", Budget(10**12))
        limit = 400_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        done = 0
        try:
            while done < 10_000:
                call()
                done += 1
        except StoreError as error:
            print(error)
        full = store.read("user:1")
        try:
            call()
        except StoreError:
            pass
        else:
            raise SystemExit("a call went through on a full disk")
        assert store.read("user:1") == full
        assert full.spent_nanos == done * 10, (full, done)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        call()
        assert store.read("user:1").spent_nanos == done * 10 + 10
        store.close()
        """,
        tmp_path,
    )
    assert answer.startswith("cannot write the store in")
    assert "the disk may be full, over its quota, or failing; nothing was changed" in answer


def test_a_database_that_may_not_grow_says_that_the_disk_is_full(folder: Path) -> None:
    store = opened(folder)
    con = connection(store)
    pages = con.execute("PRAGMA page_count").fetchone()[0]
    con.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for i in range(1_000):
            store.set_budget(f"user:{i + 2}", Budget(1))

    with pytest.raises(StoreError, match="the disk is full: free some space; nothing was changed"):
        fill()
    made = len(list(store.list()))
    store.close()
    store.set_budget("user:next", Budget(1))
    assert len(list(store.list())) == made + 1
    assert spent(store) == 5
    store.close()


# A database that another process has locked


@contextmanager
def locked(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None, check_same_thread=False)) as con:
        con.execute("BEGIN IMMEDIATE")
        yield con


def test_a_locked_database_is_waited_for(folder: Path) -> None:
    store = opened(folder)
    with locked(folder) as con:
        timer = threading.Timer(0.3, con.execute, ("COMMIT",))
        timer.start()
        begun = time.monotonic()
        assert isinstance(store.reserve(make_hold(10)), Granted)
        assert time.monotonic() - begun > 0.1
        timer.join()
    store.close()


def test_a_lock_held_too_long_is_a_store_error_and_never_a_refusal(folder: Path) -> None:
    store = opened(folder, "?timeout=0.2")
    hold = make_hold(995)
    with locked(folder):
        for verb in (
            lambda: store.reserve(hold),
            lambda: store.settle(hold, Settlement(5)),
            lambda: store.set_budget("user:1", Budget(1)),
            lambda: store.delete("user:1"),
            lambda: opened(folder, "?timeout=0.2"),
        ):
            begun = time.monotonic()
            with pytest.raises(StoreError, match=r"held its lock for more than 0\.2 s.*timeout=") as caught:
                verb()
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            assert time.monotonic() - begun < 10
        assert spent(store) == 5  # reading waits for nobody
    assert store.reserve(hold) == Granted(("user:1",))
    store.close()


# Waiting, by threads


def test_the_timeout_is_a_deadline_for_each_verb_and_not_for_each_thread_in_turn(folder: Path) -> None:
    store = opened(folder, "?timeout=0.4")
    waited: list[float] = []

    def wait() -> None:
        begun = time.monotonic()
        with pytest.raises(StoreError, match="timeout="):
            store.set_budget("user:1", Budget(2))
        waited.append(time.monotonic() - begun)

    with locked(folder):
        threads = [threading.Thread(target=wait) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(waited) == 12
    assert max(waited) < 3  # one after the other: 4.8 s
    store.set_budget("user:1", Budget(2))
    store.close()


def test_a_transaction_that_sqlite_has_ended_by_itself_does_not_hide_why(folder: Path) -> None:
    store = opened(folder)
    assert isinstance(store, DiskStore)
    # A full disk does so; then there is nothing to roll back, which SQLite calls an error.
    statement = "INSERT OR ROLLBACK INTO project (name) VALUES ('p')"
    with pytest.raises(StoreError, match="UNIQUE"):
        store._run(lambda rows: rows._execute(statement))
    assert not connection(store).in_transaction
    spend(store, 5)
    store.close()
