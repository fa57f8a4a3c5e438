"""`disk://FOLDER`: balances in a folder, shared by every process of this machine.

The folder is a diskcache, hardened, whose SQLite database holds the store's own tables: integers and JSON
text, no pickle, nothing ever evicted. Folders that this makes are 0700, and every verb is one immediate
transaction. A killed process loses nothing that a verb had returned for; a power cut may lose the last
moments (WAL with synchronous=NORMAL).
"""

from __future__ import annotations

import contextlib
import operator
import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from errno import EDQUOT, ENOSPC, EROFS
from os.path import expandvars
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from diskcache.core import DBNAME

from budgetguard.core import ledger
from budgetguard.core.accounts import Balance
from budgetguard.core.holds import Hold, HoldRecord, Reservation, Settled, Settlement, UnknownAccount
from budgetguard.core.inside import store_verbs
from budgetguard.core.learning import Observations
from budgetguard.core.rows import AccountRow, Export, HoldRow, Stored
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.stores import disk_tables as tables
from budgetguard.stores import disk_verbs
from budgetguard.stores.disk_export import exported
from budgetguard.stores.disk_fast import FastPath
from budgetguard.stores.disk_file import StoreFile, connect
from budgetguard.stores.disk_rows import TableRows, sweep
from budgetguard.stores.disk_tables import MalformedAccount
from budgetguard.stores.embedded import EmbeddedStore
from budgetguard.stores.forking import survive_forks
from budgetguard.stores.nested import nested
from budgetguard.stores.urls import public_url, shown_url, shown_word
from budgetguard.stores.waiting import take

DEFAULT_LOCK_TIMEOUT: Final = 60.0
"""Seconds that a verb waits for other threads and processes before it raises StoreError."""

_SWEEP_EVERY = 512
_LAST: Final = b""
"""Comes after every text, as SQLite sorts."""


@store_verbs
class DiskStore(EmbeddedStore):
    """Keep one project's rows in a diskcache folder.

    Args:
        url: `disk:///absolute/folder`, `disk://relative/folder` or `disk://~/folder`, optionally with
            `?timeout=SECONDS` (how long a verb waits for other threads and processes; 60 by default).
            `$NAME` and `${NAME}` stand for variables of the environment.

    Raises:
        ConfigurationError: a bad URL.
        StoreError: the folder cannot be made, read or written, or holds something else.
    """

    blocking = True

    def __init__(self, url: str, *, project: str, clock: Clock, retention: str) -> None:
        super().__init__(project=project, clock=clock, retention=retention)
        self.url = url
        self._folder, self._timeout = parse_url(url)
        self._database = str(self._folder / DBNAME)
        # One thread at a time uses the connection and waits for SQLite's lock, whose waiting is a poll.
        self._lock = threading.RLock()
        self._close_after = False
        self._since_sweep = 0
        self._file: StoreFile | None = None
        self._identity: _Identity | None = None
        self._waits = self._timeout
        self._number = 0
        self._fast = FastPath()
        survive_forks(self)
        with self._use("open"):
            pass

    def reserve(self, hold: Hold) -> Reservation:
        until = time.monotonic() + self._timeout
        granted = None
        with self._use("write", until):
            con = self._ready()
            try:
                granted = self._fast.reserve(con, self._number, hold, self._clock())
            finally:
                if granted is None:
                    self._give_up(con, hold)
        if granted is not None:
            return granted
        with self._writing(until=until) as rows:
            return ledger.reserve(rows, hold, rows.now)

    def settle(self, hold: Hold, settlement: Settlement) -> Settled | UnknownAccount:
        until = time.monotonic() + self._timeout
        settled = None
        with self._use("write", until):
            con = self._ready()
            try:
                settled = self._fast.settle(con, self._number, hold, settlement, self._clock())
            finally:
                if settled is None:
                    self._give_up(con, hold)
        if settled is not None:
            return settled
        with self._writing(until=until) as rows:
            return ledger.settle(rows, hold, settlement, rows.now)

    def reset(self, account: str) -> Balance | None:
        try:
            return super().reset(account)
        except StoreError as error:
            if not isinstance(error.__cause__, MalformedAccount):
                raise
        with self._transaction() as rows:
            if rows.moved_to is None:
                rows.mend_account(account)
        return super().reset(account)

    def delete(self, account: str) -> bool:
        try:
            return super().delete(account)
        except StoreError as error:
            if not isinstance(error.__cause__, MalformedAccount):
                raise
        with self._transaction() as rows:
            return rows.moved_to is None and rows.drop_account(account)

    def attached(self, request_id: str) -> HoldRecord | None:
        with self._reading() as rows:
            known = rows.load_answer(request_id) is not None
        return super().attached(request_id) if known else None

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
        with self._explained("read"), closing(connect(self._folder, self._timeout)) as con:
            con.execute("BEGIN")
            yield from exported(con, project, since)

    def close(self) -> None:
        if _is_owned(self._lock):
            # A signal handler must not take the connection from the verb that it interrupts: the next does.
            self._close_after = True
            return
        with self._lock:
            self._let_go()

    def _ready(self) -> sqlite3.Connection:
        """Return the connection before a verb that writes; every so often, sweep first."""
        assert self._file is not None, "used outside of _use"
        con = self._file.connection
        if not self._number:
            self._number = _project_number(con, self.project)
        self._since_sweep += 1
        if self._since_sweep >= _SWEEP_EVERY:
            self._sweep(con)
        return con

    def _give_up(self, con: sqlite3.Connection, hold: Hold) -> None:
        """Forget what the fast path tried."""
        self._fast.forget(hold)
        roll_back(con)

    def _sweep(self, con: sqlite3.Connection) -> None:
        self._since_sweep = 0
        with writing(con):
            if TableRows(con, self._number, self._clock()).moved_to is None:
                sweep(con, self._number, max(0, self._clock() - self.retention_ms))

    @contextmanager
    def _transaction(self, *, whole: bool = False, until: float | None = None) -> Iterator[TableRows]:
        with self._use("write", until):
            con = self._ready()
            with writing(con):
                yield TableRows(con, self._number, self._clock(), whole=whole)

    @contextmanager
    def _reading(self) -> Iterator[TableRows]:
        """See one state of the store throughout; waits for nobody."""
        with self._use("read") if not self._is_nested() else self._apart() as con:
            try:
                con.execute("BEGIN")
                yield TableRows(con, self._number, self._clock())
            finally:
                roll_back(con)

    def _is_nested(self) -> bool:
        """Tell whether this thread is in the middle of a verb, which a signal handler has interrupted."""
        return _is_owned(self._lock) and self._file is not None

    @contextmanager
    def _apart(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection of its own: what the verb that was interrupted has written is not committed."""
        with self._explained("read"), closing(connect(self._folder, self._timeout)) as con:
            yield con

    def _peek(self, account: str) -> AccountRow | None:
        with self._reading() as rows:
            return rows.peek_account(account)

    def _scan_accounts(self, prefix: str) -> Iterator[tuple[str, AccountRow]]:
        end = _after(prefix) if prefix else _LAST
        after: str | None = None
        malformed: list[MalformedAccount] = []
        while True:
            with self._reading() as rows:
                page = rows.page_of_accounts(prefix, end, after)
            for name, row in page:
                if isinstance(row, MalformedAccount):
                    malformed.append(row)
                else:
                    yield name, row
            if len(page) < tables.PAGE:
                break
            after = page[-1][0]
        # The others are listed all the same; but a list that lacks some must not pass for a whole one.
        with self._explained("read"):
            for error in malformed:
                raise error

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

    def _wait(self, doing: str, until: float) -> None:
        """Wait for the lock.

        Raises:
            StoreError: it did not come in time.
        """
        if not take(self._lock, until):
            raise StoreError(
                f"cannot {doing} the store in {self._folder}: other threads of this process kept it busy "
                f"for {self._timeout:g} s, as where another process holds its lock; try again, or raise "
                "?timeout="
            )

    @contextmanager
    def _use(self, doing: str, until: float | None = None) -> Iterator[sqlite3.Connection]:
        """Yield the connection to one verb at a time, which waits until the deadline at most.

        An interrupt may come between any two instructions. Wherever it comes, this generator ends, and so
        lets go of the lock. It is one generator, since three of them cost a third of a verb.

        Raises:
            StoreError: the verb failed, the lock did not come in time, or this very thread is in the middle
                of another verb.
        """
        lock = self._lock
        if _is_owned(lock):
            raise nested(public_url(self.url))
        waits = self._timeout
        try:
            if not lock.acquire(False):
                until = time.monotonic() + waits if until is None else until
                self._wait(doing, until)
            if until is not None:
                waits = max(0.0, until - time.monotonic())
            con = self._open(waits).connection
            # SQLite waits for what is left of the time. Not for each verb: it costs a statement.
            if not 0.9 * self._waits <= waits <= 1.1 * self._waits + 0.01:
                con.execute(f"PRAGMA busy_timeout = {int(waits * 1_000)}")
                self._waits = waits
            yield con
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(_explain(error, doing, self._folder, self._timeout)) from error
        finally:
            try:  # noqa: SIM105 - an interrupt in a `suppress` would leave the lock taken
                lock.release()
            except RuntimeError:  # it was never taken
                pass

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Have whatever Python raises over a file that is damaged, missing or full leave as a StoreError."""
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(_explain(error, doing, self._folder, self._timeout)) from error

    def _open(self, waits: float) -> StoreFile:
        if self._close_after:
            self._close_after = False
            self._let_go()
        if self._identity is not None and _identity(self._database) != self._identity:
            self._let_go()
            raise StoreError(
                f"the store in {self._folder} was deleted or replaced while this program used it: nothing "
                "was changed. Put its folder back, or start the program again to use what is there now"
            )
        if self._file is None:
            _make_private(self._folder)
            file = _open_file(self._folder, waits)
            self._waits = waits
            self._number = 0
            self._identity = _identity(self._database)
            self._file = file
        if not self._number:  # until something is written, by this process or another
            self._number = _find_project(self._file.connection, self.project)
        return self._file

    def _let_go(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _before_fork(self) -> None:
        if self._file is not None:
            self._file.close()

    def _after_fork_in_child(self) -> None:
        if self._file is not None and self._file.is_open():
            # C code forked without the hook above. SQLite forbids to close what the parent opened.
            self._file.abandon()
            _INHERITED.append(self._file)
            self._file = None


# Whether this thread has a lock already: all re-entrant locks of Python tell, `threading.Condition` needs it.
_is_owned: Final = operator.methodcaller("_is_owned")

_LOCKS: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# A constraint is violated by what a stranger planted: an update checks all columns of a row.
_DAMAGES: Final = ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_CONSTRAINT")
_INHERITED: list[StoreFile] = []


def parse_url(url: str) -> tuple[Path, float]:
    """Return the folder that a `disk://` URL names, absolute, and how long to wait for its lock (seconds).

    Raises:
        ConfigurationError: no folder, or an option that disk:// does not take.
    """
    shown = shown_url(url)
    text, _, query = url.removeprefix("disk://").partition("?")
    if not text.strip("/"):
        raise ConfigurationError(
            f"store {shown!r} names no folder: write disk:///var/lib/app/budgets or disk://~/budgets"
        )
    timeout = DEFAULT_LOCK_TIMEOUT
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name != "timeout":
            told = shown_word(name)
            raise ConfigurationError(f"store {shown!r}: unknown option {told}; disk:// takes timeout=SECONDS")
        try:
            timeout = float(value)
        except ValueError:
            timeout = -1.0
        if not 0 <= timeout < 1e6:
            told = shown_word(value)
            raise ConfigurationError(f"store {shown!r}: timeout must be a number of seconds, not {told}")
    if (unset := re.search(r"\$(\w+|\{[^}]*\})", expandvars(text))) is not None:
        raise ConfigurationError(
            f"store {shown!r}: there is no variable {unset[0]} in the environment: set it, or write the "
            "folder out"
        )
    try:
        folder = Path(expandvars(text)).expanduser().absolute()
    except RuntimeError as error:  # ~name of nobody, or no home at all
        raise ConfigurationError(f"store {shown!r}: {error}; write an absolute folder") from error
    if "\0" in text:
        raise ConfigurationError(f"store {shown!r}: a folder's name cannot hold a NUL character")
    return folder, timeout


@contextmanager
def writing(con: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock: commit on leaving, and roll back on any exception."""
    try:
        con.execute("BEGIN IMMEDIATE")
        yield
        con.execute("COMMIT")
    finally:
        roll_back(con)  # an interrupt is an exception too


def roll_back(con: sqlite3.Connection) -> None:
    """End a transaction that did not commit, if there is one."""
    if con.in_transaction:
        with contextlib.suppress(sqlite3.Error):  # what ended the transaction matters, not that it has ended
            con.execute("ROLLBACK")


_Identity: TypeAlias = tuple[int, int]


def _identity(database: str) -> _Identity | None:
    """Tell a database from another in its place; None where there is none."""
    try:
        found = os.stat(database)  # noqa: PTH116 - for each verb, and a Path takes three times as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


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
            return StoreFile(
                folder,
                timeout,
                (*tables.SCHEMA, *disk_verbs.SCHEMA),
                (*tables.UPGRADE, *disk_verbs.UPGRADE),
            )
        except sqlite3.OperationalError as error:
            # Several processes making one database at once meet locks that SQLite does not wait for.
            if error.sqlite_errorcode & 0xFF not in _LOCKS or time.monotonic() >= give_up:
                raise
            time.sleep(0.01)


def _find_project(con: sqlite3.Connection, project: str) -> int:
    """Return a project's number, 0 if nothing was written of it yet."""
    found = con.execute(tables.FIND_PROJECT, (project,)).fetchone()
    return 0 if found is None else int(found[0])


def _project_number(con: sqlite3.Connection, project: str) -> int:
    con.execute(tables.ADD_PROJECT, (project,))  # another process may be faster
    return _find_project(con, project)


def _after(prefix: str) -> str:
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _explain(error: Exception, doing: str, folder: Path, timeout: float) -> str:
    # SQLite's own name for it; the text of an error is no interface.
    kind = getattr(error, "sqlite_errorname", "")
    number = getattr(error, "errno", None)
    if kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        remedy = f"another process held its lock for more than {timeout:g} s; try again, or raise ?timeout="
    elif kind == "SQLITE_FULL" or number in (ENOSPC, EDQUOT):
        remedy = "the disk is full: free some space; nothing was changed"
    elif number == EROFS or _is_on_a_read_only_disk(folder):
        remedy = "it is on a file system that is read-only: choose another folder; nothing was changed"
    elif (
        kind.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH"))
        or isinstance(error, PermissionError)
        or (kind.startswith("SQLITE_CANTOPEN") and not _is_ours_to_use(folder))
    ):
        remedy = (
            f"it is read-only to this process: give it write access, or choose another folder{_whose(folder)}"
        )
    elif kind.startswith("SQLITE_CANTOPEN"):
        remedy = "its database cannot be opened: does the folder still exist, and is a file of it in the way?"
    elif kind.startswith("SQLITE_IOERR"):
        remedy = "the disk may be full, over its quota, or failing; nothing was changed"
    elif isinstance(error, MalformedAccount):
        remedy = (
            f"what it has of account {error.account!r} is damaged: reset the account, or delete it and make "
            "it again; others are not concerned, and nothing was changed"
        )
    elif isinstance(error, NotADirectoryError | FileExistsError):
        remedy = "there is a file where the folder should be: choose another folder"
    elif isinstance(error, MemoryError) or kind == "SQLITE_NOMEM":
        remedy = "there is not enough memory; nothing was changed"
    elif kind.startswith(_DAMAGES) or not isinstance(error, OSError):
        # Whatever else SQLite and Python say of what they find in the file: text that is no UTF-8, numbers
        # that are none, JSON nested without end.
        remedy = (
            "its cache.db is not a budgetguard store, or is damaged: "
            "move the folder away or restore it from a backup; nothing was changed"
        )
    else:
        remedy = "the operating system does not let it"
    return f"cannot {doing} the store in {folder}: {remedy} ({type(error).__name__}: {error})"


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
