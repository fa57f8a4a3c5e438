"""The file under the disk store: a diskcache that evicts nothing, pickles nothing and says why it fails."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from errno import errorcode
from pathlib import Path
from typing import Any, Final, NoReturn

import diskcache
from diskcache.core import DBNAME

from budgetguard.errors import StoreError
from budgetguard.stores import remedies
from budgetguard.stores.sqlite_tables import SCHEMA, UPGRADES

# Kept in the header of the database, so that a database is told from a stranger's before any write.
_APPLICATION: Final = int.from_bytes(b"BGrd")
_SCHEMA: Final = 7

# Half of SQLite's own: a call changes a few rows, and each page that it changes is written and summed whole.
_PAGE_SIZE: Final = 2_048
# Frames of the write-ahead log, a page each, before what they say is copied into the database. SQLite's own
# figure is 1 000; four times as many share one copying, and one fsync of each file, among more calls.
_CHECKPOINT_AT: Final = 4_000


_LOCKS: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_IS_MADE: Final = "SELECT 1 FROM sqlite_master WHERE name = 'project' AND type = 'table'"


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


class StoreFile(diskcache.Cache):  # type: ignore[misc]  # diskcache has no type hints
    """Open a diskcache's database, with the store's tables in it, for transactions of the caller's.

    diskcache's own `get` and `set` take a transaction and three statements a value, and their waiting
    either goes on for ever, whatever the error is, or hides the error behind a Timeout. One connection
    serves all threads, so whoever uses this lets one thread in at a time; `close` then closes all that
    there is.

    Args:
        folder: an existing folder.
        timeout: seconds that a transaction waits for another process's.

    Raises:
        sqlite3.Error: the database cannot be opened.
        StoreError: the database is not budgetguard's, or of another schema; it was not changed.
    """

    def __init__(self, folder: Path, timeout: float) -> None:
        self._path = folder / DBNAME
        self._wait = timeout
        # The finalizer needs the connection without the cache.
        self._connections: list[sqlite3.Connection] = []
        self._finalizer = weakref.finalize(self, _close_all, self._connections)
        _make_file(self._path)
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
            self._make()
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
            self._connections.append(connect(self._path.parent, self._wait))
        return self._connections[0]

    @property
    def _sql_retry(self) -> Callable[..., sqlite3.Cursor]:
        """Execute what diskcache does as it opens, waiting as long as asked, not 60 s whatever the error."""
        return self._con.execute

    def _make(self) -> None:
        con = self.connection
        if con.execute(_IS_MADE).fetchone() is not None:
            return
        with con:
            con.execute("BEGIN IMMEDIATE")
            # All are made in one transaction, so where one is there all are.
            if con.execute(_IS_MADE).fetchone() is None:
                for statement in SCHEMA:
                    con.execute(statement)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        _close_all(self._connections)

    def is_open(self) -> bool:
        """Return whether there is a connection."""
        return bool(self._connections)

    def abandon(self) -> None:
        """Never touch the connection again, not even to close it: it is another process's."""
        self._finalizer.detach()


def connect(folder: Path, timeout: float) -> sqlite3.Connection:
    """Open a connection to the database in a folder, of which each statement is a transaction of its own.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    path = folder / DBNAME
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_AT}")
    return connection


def _make_file(path: Path) -> None:
    """Make the database's file for its owner alone, as SQLite then makes the files beside it.

    Those of an older budgetguard, which others may read because the umask lets them, are closed to them.
    Files that were opened to a group on purpose stay as they are.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with suppress(OSError):  # it is not there, or another user's
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o007:
                file.chmod(mode & 0o700)


def _claim(path: Path, timeout: float) -> None:
    """Make the database ours if it is empty; refuse it, unchanged, if it is somebody else's."""
    with closing(sqlite3.connect(path, timeout=timeout, isolation_level=None)) as con:
        # In one snapshot: between two looks another process may make the database, a stranger's it seems.
        con.execute("BEGIN")
        try:
            known = _schema_of(con, path)
        finally:
            con.execute("ROLLBACK")
        if known == _SCHEMA:
            return
        if known is not None:
            _upgrade(con, path)
            return
        # Before anything else is written: SQLite switches only while nobody else is in the database.
        con.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        con.execute("PRAGMA journal_mode = WAL")
        con.execute("BEGIN IMMEDIATE")
        if _schema_of(con, path) is None:  # another process may have been faster
            con.execute(f"PRAGMA application_id = {_APPLICATION}")
            con.execute(f"PRAGMA user_version = {_SCHEMA}")
        con.execute("COMMIT")


def _upgrade(con: sqlite3.Connection, path: Path) -> None:
    """Bring an older database up to date, in one transaction: a process that dies leaves it as it was."""
    con.execute("BEGIN IMMEDIATE")
    schema = _schema_of(con, path)  # another process may have been faster
    made = con.execute(_IS_MADE).fetchone() is not None
    while schema is not None and schema < _SCHEMA:
        for statement in UPGRADES[schema] if made else ():
            con.execute(statement)
        schema += 1
    con.execute(f"PRAGMA user_version = {_SCHEMA}")
    con.execute("COMMIT")


def _schema_of(con: sqlite3.Connection, path: Path) -> int | None:
    """Return the version of a database of ours, which this budgetguard can use or upgrade; None of an empty.

    Raises:
        StoreError: it is somebody else's, or of another version.
    """
    application: int = con.execute("PRAGMA application_id").fetchone()[0]
    if application == _APPLICATION:
        schema: int = con.execute("PRAGMA user_version").fetchone()[0]
        if schema != _SCHEMA and schema not in UPGRADES:
            remedy = "update budgetguard" if schema > _SCHEMA else "use the budgetguard that made it"
            raise StoreError(
                f"the store in {path.parent} has schema {schema}, and this budgetguard knows {_SCHEMA}: "
                f"{remedy}, or give it another folder; nothing was changed"
            )
        return schema
    if application or con.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError(
            f"the folder {path.parent} holds another program's {path.name}: "
            "give budgetguard a folder of its own; nothing was changed"
        )
    return None


def _close_all(connections: list[sqlite3.Connection]) -> None:
    while connections:
        connections.pop().close()


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"a budgetguard store holds text only, not {type(value).__name__}")


def database_identity(database: str) -> tuple[int, int] | None:
    """Return what tells a database from another in its place; None where there is none."""
    try:
        found = os.stat(database)  # noqa: PTH116 - for each verb, and a Path takes three times as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_file(folder: Path, timeout: float) -> StoreFile:
    """Open the database in a folder; make both if need be.

    Raises:
        OSError, sqlite3.Error: it cannot be opened.
        StoreError: see `StoreFile`.
    """
    _make_private(folder)
    give_up = time.monotonic() + timeout
    while True:
        try:
            return StoreFile(folder, timeout)
        except sqlite3.OperationalError as error:
            # Several processes making one database at once meet locks that SQLite does not wait for.
            if error.sqlite_errorcode & 0xFF not in _LOCKS or time.monotonic() >= give_up:
                raise
            time.sleep(0.01)


def _make_private(folder: Path) -> None:
    """Make a folder and its missing parents, each 0700: balances are nobody else's business."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        with suppress(FileExistsError):  # another process was faster
            path.mkdir(mode=0o700)
    if not (missing[0] if missing else folder).is_dir():
        raise NotADirectoryError(f"{folder} is a file")


def explain(error: Exception, doing: str, folder: Path, timeout: float) -> str:
    """Return the text of a StoreError: what failed in a folder, and the remedy."""
    names = set(_names_of(error, folder))
    about = {"account": getattr(error, "account", ""), "whose": _whose(folder)}
    return remedies.explain(error, folder, timeout, remedies.DISK, doing=doing, names=names, **about)


def _names_of(error: Exception, folder: Path) -> Iterator[str]:
    """Yield what SQLite, the operating system and a look at the folder call an error."""
    # SQLite's own name for it, without what it says more exactly; the text of an error is no interface.
    name = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
    yield name
    yield errorcode.get(getattr(error, "errno", None) or 0, "")
    if _is_on_a_read_only_disk(folder):
        yield "EROFS"
    if name == "SQLITE_CANTOPEN" and not _is_ours_to_use(folder):
        yield "PermissionError"


def _is_on_a_read_only_disk(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):  # Windows has no such call
        return False


def _is_ours_to_use(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK) and os.access(folder / DBNAME, os.R_OK | os.W_OK)


def _whose(folder: Path) -> str:
    try:
        owner, user = folder.stat().st_uid, os.geteuid()
    except (AttributeError, OSError):  # Windows knows no users by number
        return ""
    return (
        "" if owner == user else f"; it belongs to another user (id {owner}, and this process runs as {user})"
    )
