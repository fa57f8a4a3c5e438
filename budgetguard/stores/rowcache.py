"""A diskcache whose values are JSON rows, whose transactions say why they fail, and that never evicts."""

from __future__ import annotations

import json
import sqlite3
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NoReturn

import diskcache

from budgetguard.errors import StoreError

# Kept in the header of the database, so that a database is told from a stranger's before any write.
_APPLICATION: Final = int.from_bytes(b"BGrd")
_SCHEMA: Final = 2

_LOAD = "SELECT key, value, expire_time FROM Cache WHERE raw = 1 AND key IN ({})"
_UPDATE = "UPDATE Cache SET value = ? WHERE key = ? AND raw = 1"
_UPDATE_EXPIRY = "UPDATE Cache SET value = ?, expire_time = ? WHERE key = ? AND raw = 1"
_INSERT = "INSERT INTO Cache (key, raw, expire_time, mode, value) VALUES (?, 1, ?, ?, ?)"
_REMOVE = "DELETE FROM Cache WHERE key = ? AND raw = 1"
_PAGE_FROM = "SELECT key, value FROM Cache WHERE raw = 1 AND key >= ? AND key < ? ORDER BY key LIMIT ?"
_PAGE_AFTER = "SELECT key, value FROM Cache WHERE raw = 1 AND key > ? AND key < ? ORDER BY key LIMIT ?"
_SWEEP_EXPIRED = "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE expire_time < ? LIMIT ?)"
_SWEEP_OLD = """
DELETE FROM Cache WHERE rowid IN (
  SELECT rowid FROM Cache WHERE raw = 1 AND key >= ? AND key < ?
  AND CASE WHEN typeof(value) = 'text' AND json_valid(value) THEN
    coalesce(
      json_extract(value, '$.ended'),
      CASE json_extract(value, '$.accounts') WHEN '{}' THEN json_extract(value, '$.expires') END
    ) < ? END
  LIMIT ?
)
"""
_SWEEP_AT_MOST = 2_000

# diskcache's own index has every row in it; only what may be forgotten once idle has an expiry here.
_EXPIRY_INDEX = "CREATE INDEX IF NOT EXISTS Cache_expire_time ON Cache (expire_time)"
_SMALL_EXPIRY_INDEX = f"{_EXPIRY_INDEX} WHERE expire_time IS NOT NULL"


@lru_cache(maxsize=16)
def _load_of(keys: int) -> str:
    return _LOAD.format(", ".join("?" * keys))


STATEMENTS: Final = {
    "load one": _load_of(1),
    "load three": _load_of(3),
    "update": _UPDATE,
    "update expiry": _UPDATE_EXPIRY,
    "remove": _REMOVE,
    "page from": _PAGE_FROM,
    "page after": _PAGE_AFTER,
    "sweep expired": _SWEEP_EXPIRED,
    "sweep old": _SWEEP_OLD,
}
"""What runs over the rows, for a test that asks SQLite how."""

# ASCII only: a lone surrogate, which a model's name may hold, is no UTF-8 and could not be stored.
dump: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode
"""Write a row as JSON text."""


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
        StoreError: the database is not budgetguard's, or of another schema; it was not changed.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self._path = folder / diskcache.core.DBNAME
        self._wait = timeout
        # The finalizer needs the connection without the cache.
        self._connections: list[sqlite3.Connection] = []
        self._finalizer = weakref.finalize(self, _close_all, self._connections)
        _claim(self._path, timeout)
        try:
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
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, opened if need be."""
        return self._con

    @property
    def _con(self) -> sqlite3.Connection:
        if not self._connections:
            connection = sqlite3.connect(
                self._path, timeout=self._wait, isolation_level=None, check_same_thread=False
            )
            self._connections.append(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
        return self._connections[0]

    @property
    def _sql_retry(self) -> Callable[..., sqlite3.Cursor]:
        """Execute what diskcache does as it opens: waiting as long as asked, not 60 s, and writing less.

        Its triggers keep the number and size of the rows, for eviction. Nothing is evicted here, and
        they would write a second row at every update; so would its index of expiries.
        """
        execute = self._con.execute

        def run(statement: str, *args: Any) -> sqlite3.Cursor:
            if statement.startswith("CREATE TRIGGER"):
                statement = "SELECT 0"
            elif statement == _EXPIRY_INDEX:
                statement = _SMALL_EXPIRY_INDEX
            return execute(statement, *args)

        return run

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        _close_all(self._connections)

    def is_open(self) -> bool:
        """Tell whether there is a connection."""
        return bool(self._connections)

    def abandon(self) -> None:
        """Never touch the connection again, not even to close it: it is another process's."""
        self._finalizer.detach()

    def load(self, keys: Sequence[str]) -> list[tuple[str, object, float | None]]:
        """Return key, value and expiry of the rows under some keys, leaving out what does not exist."""
        return self._con.execute(_load_of(len(keys)), keys).fetchall()

    def insert(self, key: str, text: str, expires: float | None) -> None:
        """Store a row that does not exist, to be swept once `expires` (epoch seconds) has passed, if ever."""
        self._con.execute(_INSERT, (key, expires, diskcache.core.MODE_RAW, text))

    def update(self, key: str, text: str) -> None:
        """Replace a row that exists; when it expires stays as it is."""
        self._con.execute(_UPDATE, (text, key))

    def update_expiry(self, key: str, text: str, expires: float | None) -> None:
        """Replace a row that exists, and when it expires."""
        self._con.execute(_UPDATE_EXPIRY, (text, expires, key))

    def remove(self, key: str) -> bool:
        """Delete a row, and tell whether there was one."""
        removed: int = self._con.execute(_REMOVE, (key,)).rowcount
        return removed > 0

    def page(self, start: str, end: str, size: int, *, after: bool) -> list[tuple[str, Any]]:
        """Return up to `size` rows in order of their keys, from `start` (or after it) to before `end`.

        Raises:
            sqlite3.DataError: what is stored there is not JSON text.
        """
        found = self._con.execute(_PAGE_AFTER if after else _PAGE_FROM, (start, end, size)).fetchall()
        return [(key, parse(key, value)) for key, value in found]

    def sweep_expired(self, now: float) -> None:
        """Delete some of the rows that have expired; few enough not to hold up a call."""
        self._con.execute(_SWEEP_EXPIRED, (now, _SWEEP_AT_MOST))

    def sweep_old(self, start: str, end: str, horizon: int) -> None:
        """Delete some of the holds with start <= key < end that ended before the horizon (milliseconds)."""
        self._con.execute(_SWEEP_OLD, (start, end, horizon, _SWEEP_AT_MOST))


def _claim(path: Path, timeout: float) -> None:
    """Make the database ours if it is empty; refuse it, unchanged, if it is somebody else's."""
    with closing(sqlite3.connect(path, timeout=timeout, isolation_level=None)) as con:
        if _is_ours(con, path):
            return
        # Before anything else is written: SQLite switches only while nobody else is in the database.
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("BEGIN IMMEDIATE")
        if not _is_ours(con, path):  # another process may have been faster
            con.execute(f"PRAGMA application_id = {_APPLICATION}")
            con.execute(f"PRAGMA user_version = {_SCHEMA}")
        con.execute("COMMIT")


def _is_ours(con: sqlite3.Connection, path: Path) -> bool:
    application: int = con.execute("PRAGMA application_id").fetchone()[0]
    if application == _APPLICATION:
        schema: int = con.execute("PRAGMA user_version").fetchone()[0]
        if schema != _SCHEMA:
            raise StoreError(
                f"the store in {path.parent} has schema {schema}, and this budgetguard knows {_SCHEMA}: "
                "update budgetguard, or give it another folder"
            )
        return True
    if application or con.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(
            f"the folder {path.parent} holds another program's {path.name}: "
            "give budgetguard a folder of its own; nothing was changed"
        )
    return False


def parse(key: str, text: object) -> Any:
    """Read a row.

    Raises:
        sqlite3.DataError: it is not JSON text.
    """
    # Bytes would be a pickle or a stranger's; json.loads would take them.
    if not isinstance(text, str):
        raise sqlite3.DataError(f"malformed row {key!r}: {type(text).__name__} where JSON text should be")
    try:
        return json.loads(text)
    except ValueError as error:
        raise sqlite3.DataError(f"malformed row {key!r}: not JSON text: {error}") from error


def _close_all(connections: list[sqlite3.Connection]) -> None:
    while connections:
        connections.pop().close()


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"a budgetguard store holds text only, not {type(value).__name__}")
