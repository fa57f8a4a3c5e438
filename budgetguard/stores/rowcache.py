"""A diskcache whose values are JSON rows, whose transactions say why they fail, and that never evicts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import diskcache

_LOAD = "SELECT value FROM Cache WHERE key = ? AND raw = 1"
_UPDATE = "UPDATE Cache SET value = ?, expire_time = ? WHERE key = ? AND raw = 1"
_INSERT = (
    "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, value)"
    " VALUES (?, 1, 0, ?, 0, 0, NULL, 0, ?, ?)"
)
_PAGE = "SELECT key, value FROM Cache WHERE raw = 1 AND key {} ? AND key < ? ORDER BY key LIMIT ?"
_SWEEP = "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE expire_time < ? LIMIT ?)"
_SWEEP_AT_MOST = 2_000

_dump = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode


class PlainDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no type hints
    """Store text as text, inside the database; refuse all else, and pickle above all (CVE-2025-69872)."""

    def __init__(self, directory: str, **_: Any) -> None:
        super().__init__(directory, min_file_size=2**31)

    def put(self, key: object) -> tuple[str, bool]:
        if not isinstance(key, str):
            _refuse(key)
        return key, True

    def get(self, key: object, raw: bool) -> str:
        if not raw or not isinstance(key, str):
            _refuse(key)
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, None, str]:
        if read or not isinstance(value, str):
            _refuse(value)
        return 0, diskcache.core.MODE_RAW, None, value

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> str:
        if mode != diskcache.core.MODE_RAW or filename is not None or not isinstance(value, str):
            _refuse(value)
        return value


class RowCache(diskcache.Cache):  # type: ignore[misc]  # diskcache has no type hints
    """Load and save JSON rows by key, inside transactions of the caller's.

    Used instead of diskcache's own `get` and `set` for two reasons: those take a transaction each and
    three statements a value; and their waiting either goes on for ever, whatever the error is, or
    hides the error behind a Timeout. One connection serves all threads, so whoever uses this lets
    one thread in at a time; `close` then closes all that there is.

    Args:
        folder: an existing folder.
        timeout: seconds that a transaction waits for another process's.

    Raises:
        sqlite3.Error: the database cannot be opened.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self._connection: sqlite3.Connection | None = None
        super().__init__(
            str(folder),
            timeout=timeout,
            disk=PlainDisk,
            eviction_policy="none",
            cull_limit=0,
            statistics=0,
            tag_index=0,
            sqlite_auto_vacuum=0,
        )

    @property
    def _con(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                Path(self._directory, diskcache.core.DBNAME),
                timeout=self._timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.execute("PRAGMA synchronous = NORMAL")
        return self._connection

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Hold the write lock: commit on leaving, roll back on any exception, an interrupt included."""
        con: sqlite3.Connection = self._con
        try:
            con.execute("BEGIN IMMEDIATE")
            yield
            con.execute("COMMIT")
        finally:
            if con.in_transaction:
                con.execute("ROLLBACK")

    def load(self, key: str) -> Any:
        """Return the row under a key, or None."""
        found = self._sql(_LOAD, (key,)).fetchone()
        return None if found is None else json.loads(found[0])

    def save(self, key: str, row: object, expires: float | None) -> None:
        """Insert or replace a row, to be swept once `expires` (epoch seconds) has passed, if ever."""
        text = _dump(row)
        if self._sql(_UPDATE, (text, expires, key)).rowcount == 0:
            self._sql(_INSERT, (key, expires, diskcache.core.MODE_RAW, text))

    def remove(self, key: str) -> bool:
        """Delete a row, and tell whether there was one."""
        removed: int = self._sql("DELETE FROM Cache WHERE key = ? AND raw = 1", (key,)).rowcount
        return removed > 0

    def page(self, start: str, end: str, size: int, *, after: bool) -> list[tuple[str, Any]]:
        """Return up to `size` rows in order of their keys, from `start` (or after it) to before `end`."""
        found = self._sql(_PAGE.format(">" if after else ">="), (start, end, size)).fetchall()
        return [(key, json.loads(value)) for key, value in found]

    def rows(self) -> int:
        """Return how many rows there are, of whoever wrote them."""
        count: int = self._sql("SELECT COUNT(*) FROM Cache").fetchone()[0]
        return count

    def sweep(self, now: float) -> None:
        """Delete some of the rows whose time has passed; few enough not to hold up a call."""
        self._sql(_SWEEP, (now, _SWEEP_AT_MOST))


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"a budgetguard store holds text only, not {type(value).__name__}")
