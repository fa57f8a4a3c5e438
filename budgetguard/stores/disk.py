"""`disk://FOLDER`: balances in a folder, shared by every process of this machine.

The folder is a diskcache, hardened, whose SQLite database holds the store's own tables: integers and JSON
text, no pickle, nothing ever evicted. Folders that this makes are 0700, and every verb is one immediate
transaction. A killed process loses nothing that a verb had returned for; a power cut may lose the last
moments (WAL with synchronous=NORMAL).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.holds import Hold, Reservation, Settled, Settlement, UnknownAccount
from budgetguard.learning import Observations
from budgetguard.rows import AccountRow, Export, HoldRow, Stored
from budgetguard.stores import disk_tables as tables
from budgetguard.stores import disk_verbs
from budgetguard.stores.disk_export import exported
from budgetguard.stores.disk_fast import FastPath
from budgetguard.stores.disk_file import StoreFile, connect
from budgetguard.stores.disk_rows import TableRows, sweep
from budgetguard.stores.embedded import EmbeddedStore
from budgetguard.stores.forking import survive_forks
from budgetguard.windows import Clock, Milliseconds

DEFAULT_LOCK_TIMEOUT: Final = 60.0
"""Seconds that a verb waits for another process's transaction before it raises StoreError."""

_SWEEP_EVERY = 512
_LAST: Final = b""
"""Comes after every text, as SQLite sorts."""


class DiskStore(EmbeddedStore):
    """Keep one project's rows in a diskcache folder.

    Args:
        url: `disk:///absolute/folder`, `disk://relative/folder` or `disk://~/folder`, optionally with
            `?timeout=SECONDS` (how long to wait for a lock; 60 by default).

    Raises:
        ConfigurationError: a bad URL.
        StoreError: the folder cannot be made, read or written, or holds something else.
    """

    blocking = True

    def __init__(self, url: str, *, project: str, clock: Clock, retention: str) -> None:
        super().__init__(project=project, clock=clock, retention=retention)
        self.url = url
        self._folder, self._timeout = parse_url(url)
        # One thread at a time uses the connection and waits for SQLite's lock, whose waiting is a poll.
        self._lock = threading.Lock()
        self._since_sweep = 0
        self._file: StoreFile | None = None
        self._number = 0
        self._fast = FastPath()
        survive_forks(self)
        with self._use("open"):
            pass

    def reserve(self, hold: Hold) -> Reservation:
        granted = None
        with self._lock:
            try:
                con = self._ready()
                try:
                    granted = self._fast.reserve(con, self._number, hold, self._clock())
                finally:
                    if granted is None:
                        self._give_up(con, hold)
            except (sqlite3.Error, OSError) as error:
                raise self._error(error, "write") from error
        return super().reserve(hold) if granted is None else granted

    def settle(self, hold: Hold, settlement: Settlement) -> Settled | UnknownAccount:
        settled = None
        with self._lock:
            try:
                con = self._ready()
                try:
                    settled = self._fast.settle(con, self._number, hold, settlement, self._clock())
                finally:
                    if settled is None:
                        self._give_up(con, hold)
            except (sqlite3.Error, OSError) as error:
                raise self._error(error, "write") from error
        return super().settle(hold, settlement) if settled is None else settled

    def observations(self, model: str) -> Observations:
        with self._reading() as rows:
            return rows.load_observations(model)

    def projects(self, account: str | None = None) -> Iterator[str]:
        with self._use("read") as con:
            if account is None:
                found = con.execute(tables.LIST_PROJECTS).fetchall()
            else:
                found = con.execute(tables.LIST_PROJECTS_WITH, (account,)).fetchall()
        yield from (name for (name,) in found)

    def retired(self) -> str | None:
        with self._reading() as rows:
            return rows.moved_to

    def export(self, since: Milliseconds = 0) -> Export:
        with self._use("read"):
            number = self._number
        return Export(self._clock(), self._exported(number, since))

    def _exported(self, project: int, since: Milliseconds) -> Iterator[Stored]:
        # On a connection of its own, since all of it is one state of the store: one long transaction.
        try:
            with closing(connect(self._folder, self._timeout)) as con:
                con.execute("BEGIN")
                yield from exported(con, project, since)
        except (sqlite3.Error, OSError) as error:
            raise self._error(error, "read") from error

    def close(self) -> None:
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def _ready(self) -> sqlite3.Connection:
        """Return the connection before a verb that writes; every so often, sweep first."""
        con = self._open().connection
        self._since_sweep += 1
        if self._since_sweep >= _SWEEP_EVERY:
            self._sweep(con)
        return con

    def _give_up(self, con: sqlite3.Connection, hold: Hold) -> None:
        """Forget what the fast path tried."""
        self._fast.forget(hold)
        if con.in_transaction:
            con.execute("ROLLBACK")

    def _sweep(self, con: sqlite3.Connection) -> None:
        self._since_sweep = 0
        with writing(con):
            if TableRows(con, self._number, self._clock()).moved_to is None:
                sweep(con, self._number, max(0, self._clock() - self.retention_ms))

    @contextmanager
    def _transaction(self, *, whole: bool = False) -> Iterator[TableRows]:
        with self._use("write"):
            con = self._ready()
            with writing(con):
                yield TableRows(con, self._number, self._clock(), whole=whole)

    @contextmanager
    def _reading(self) -> Iterator[TableRows]:
        """See one state of the store throughout; waits for nobody."""
        with self._use("read") as con:
            try:
                con.execute("BEGIN")
                yield TableRows(con, self._number, self._clock())
            finally:
                if con.in_transaction:
                    con.execute("ROLLBACK")

    def _peek(self, account: str) -> AccountRow | None:
        with self._reading() as rows:
            return rows.peek_account(account)

    def _scan_accounts(self, prefix: str) -> Iterator[tuple[str, AccountRow]]:
        end = _after(prefix) if prefix else _LAST
        after: str | None = None
        while True:
            with self._reading() as rows:
                page = rows.page_of_accounts(prefix, end, after)
            yield from page
            if len(page) < tables.PAGE:
                return
            after = page[-1][0]

    def _scan_holds(self, since: Milliseconds, until: Milliseconds | None) -> Iterator[tuple[str, HoldRow]]:
        start, end = f"{since:012x}", _LAST if until is None else f"{until:012x}"
        after: str | None = None
        while True:
            with self._reading() as rows:
                page = rows.page_of_holds(start, end, after)
            yield from page
            if len(page) < tables.PAGE:
                return
            after = page[-1][0]

    def _scan_open(self, account: str | None) -> Iterator[tuple[str, HoldRow]]:
        after = ""
        while True:
            with self._reading() as rows:
                page = rows.page_of_open(account, after)
            for hold_id, row in page:
                if account is None or account in row["accounts"]:
                    yield hold_id, row
            if len(page) < tables.PAGE:
                return
            after = page[-1][0]

    @contextmanager
    def _use(self, doing: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._open().connection
            except (sqlite3.Error, OSError) as error:
                raise self._error(error, doing) from error

    def _error(self, error: Exception, doing: str) -> StoreError:
        return StoreError(_explain(error, doing, self._folder, self._timeout))

    def _open(self) -> StoreFile:
        if self._file is None:
            _make_private(self._folder)
            file = _open_file(self._folder, self._timeout)
            self._number = _project_number(file.connection, self.project)
            self._file = file
        return self._file

    def _before_fork(self) -> None:
        if self._file is not None:
            self._file.close()

    def _after_fork_in_child(self) -> None:
        if self._file is not None and self._file.is_open():
            # C code forked without the hook above. SQLite forbids to close what the parent opened.
            self._file.abandon()
            _INHERITED.append(self._file)
            self._file = None


_LOCKS: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# A constraint is violated by what a stranger planted: an update checks all columns of a row.
_DAMAGES: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_CONSTRAINT")
_INHERITED: list[StoreFile] = []


def parse_url(url: str) -> tuple[Path, float]:
    """Return the folder that a `disk://` URL names, absolute, and how long to wait for its lock (seconds).

    Raises:
        ConfigurationError: no folder, or an option that disk:// does not take.
    """
    text, _, query = url.removeprefix("disk://").partition("?")
    if not text.strip("/"):
        raise ConfigurationError(
            f"store {url!r} names no folder: write disk:///var/lib/app/budgets or disk://~/budgets"
        )
    timeout = DEFAULT_LOCK_TIMEOUT
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "timeout":
            raise ConfigurationError(f"store {url!r}: unknown option {name!r}; disk:// takes timeout=SECONDS")
        try:
            timeout = float(value)
        except ValueError:
            timeout = -1.0
        if not 0 <= timeout < 1e6:
            raise ConfigurationError(f"store {url!r}: timeout must be a number of seconds, not {value!r}")
    try:
        folder = Path(text).expanduser().absolute()
    except RuntimeError as error:  # ~name of nobody, or no home at all
        raise ConfigurationError(f"store {url!r}: {error}; write an absolute folder") from error
    if "\0" in text:
        raise ConfigurationError(f"store {url!r}: a folder's name cannot hold a NUL character")
    return folder, timeout


@contextmanager
def writing(con: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock: commit on leaving, and roll back on any exception."""
    try:
        con.execute("BEGIN IMMEDIATE")
        yield
        con.execute("COMMIT")
    finally:
        if con.in_transaction:  # an interrupt is an exception too
            con.execute("ROLLBACK")


def _make_private(folder: Path) -> None:
    """Make a folder and its missing parents, each 0700: balances are nobody else's business."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            path.mkdir(mode=0o700)
    if not (missing[0] if missing else folder).is_dir():
        raise NotADirectoryError(f"{folder} is a file")


def _open_file(folder: Path, timeout: float) -> StoreFile:
    give_up = time.monotonic() + timeout
    while True:
        try:
            return StoreFile(folder, timeout, (*tables.SCHEMA, *disk_verbs.SCHEMA))
        except sqlite3.OperationalError as error:
            # Several processes making one database at once meet locks that SQLite does not wait for.
            if error.sqlite_errorcode & 0xFF not in _LOCKS or time.monotonic() >= give_up:
                raise
            time.sleep(0.01)


def _project_number(con: sqlite3.Connection, project: str) -> int:
    found = con.execute(tables.FIND_PROJECT, (project,)).fetchone()
    if found is None:
        con.execute(tables.ADD_PROJECT, (project,))  # another process may be faster
        found = con.execute(tables.FIND_PROJECT, (project,)).fetchone()
    number: int = found[0]
    return number


def _after(prefix: str) -> str:
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _explain(error: Exception, doing: str, folder: Path, timeout: float) -> str:
    # SQLite's own name for it; the text of an error is no interface.
    kind = getattr(error, "sqlite_errorname", "")
    if kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        remedy = f"another process held its lock for more than {timeout:g} s; try again, or raise ?timeout="
    elif kind.startswith(("SQLITE_READONLY", "SQLITE_PERM")) or isinstance(error, PermissionError):
        remedy = "it is read-only to this process: give it write access, or choose another folder"
    elif kind == "SQLITE_FULL" or getattr(error, "errno", None) == ENOSPC:
        remedy = "the disk is full: free some space; nothing was changed"
    elif kind.startswith("SQLITE_IOERR"):
        remedy = "the disk may be full, over its quota, or failing; nothing was changed"
    elif kind.startswith(_DAMAGES) or isinstance(error, sqlite3.DataError):
        remedy = (
            "its cache.db is not a budgetguard store, or is damaged: "
            "move the folder away or restore it from a backup; nothing was changed"
        )
    elif isinstance(error, NotADirectoryError | FileExistsError):
        remedy = "there is a file where the folder should be: choose another folder"
    else:
        remedy = "see the cause"
    return f"cannot {doing} the store in {folder}: {remedy} ({type(error).__name__}: {error})"
