"""`disk://` against raw sqlite3 with the same durability (WAL, synchronous=NORMAL)."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from budgetguard.core.accounts import Budget
from budgetguard.core.process import system_clock
from budgetguard.core.rows import new_account
from budgetguard.stores import open_store
from budgetguard.stores.sqlite import DiskStore
from engines import AMOUNT, COST, LIMIT, PROJECT, Pair

NAME = "disk"
FLOOR = "two conditional UPDATEs in raw sqlite3, one commit each (WAL, synchronous=NORMAL)"

_RESERVE = "UPDATE b SET held = held + ? WHERE k = ? AND spent + held + ? <= lim"
_SETTLE = "UPDATE b SET held = held - ?, spent = spent + ? WHERE k = ?"


@contextmanager
def opened(users: int) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory() as folder, closing(_raw(Path(folder) / "floor.db", users)) as con:
        store = open_store(f"disk://{folder}/store", project=PROJECT)
        assert isinstance(store, DiskStore)
        row = new_account(Budget(LIMIT), system_clock())
        store._run(lambda rows: [rows.save_account(f"user:{user}", row) for user in range(users)])

        def floor(user: int) -> None:
            key = f"user:{user}"
            assert con.execute(_RESERVE, (AMOUNT, key, AMOUNT)).rowcount == 1
            assert con.execute(_SETTLE, (AMOUNT, COST, key)).rowcount == 1

        yield Pair(store, floor)
        store.close()


def _raw(path: Path, users: int) -> sqlite3.Connection:
    con = sqlite3.connect(path, isolation_level=None)
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("PRAGMA synchronous = NORMAL")
    con.execute("CREATE TABLE b (k TEXT PRIMARY KEY, lim INTEGER, spent INTEGER, held INTEGER)")
    con.execute("BEGIN")
    con.executemany("INSERT INTO b VALUES (?, ?, 0, 0)", ((f"user:{n}", LIMIT) for n in range(users)))
    con.execute("COMMIT")
    return con
