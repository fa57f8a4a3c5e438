"""`disk://FOLDER`: balances in a folder, shared by every process of this machine.

The folder is a diskcache, hardened, whose SQLite database holds the store's own tables: integers and JSON
text, no pickle, nothing ever evicted. Folders that this makes are 0700, and every verb is one immediate
transaction. A killed process loses nothing that a verb had returned for; a power cut may lose the last
moments (WAL with synchronous=NORMAL).
"""

from __future__ import annotations

import operator
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Final, TypeVar

from diskcache.core import DBNAME

from budgetguard.core.accounts import Balance
from budgetguard.core.holds import Entry
from budgetguard.core.process import store_verbs
from budgetguard.core.windows import Clock
from budgetguard.errors import StoreError
from budgetguard.stores import sqlite_tables as tables
from budgetguard.stores.embedded import EmbeddedStore
from budgetguard.stores.locks import Forkable, nested, survive_forks, take
from budgetguard.stores.sqlite_file import (
    StoreFile,
    connect,
    database_identity,
    explain,
    open_file,
)
from budgetguard.stores.sqlite_rows import RowCache, TableRows
from budgetguard.stores.sqlite_tables import MalformedAccount
from budgetguard.stores.targets import disk_target
from budgetguard.stores.transfer import frozen_error
from budgetguard.stores.urls import public_url

_T = TypeVar("_T")

_SWEEP_EVERY: Final = 512
_LOOK_EVERY: Final = 0.001
"""Seconds for which a database is taken to be where it was: each look costs a sixth of a verb."""


@store_verbs
class DiskStore(EmbeddedStore, Forkable):
    """One project's rows in a diskcache folder.

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
        super().__init__(url, project=project, clock=clock, retention=retention)
        self._folder, self._timeout = disk_target(url)
        self._database = str(self._folder / DBNAME)
        # One thread at a time uses the connection and waits for SQLite's lock, whose waiting is a poll.
        self._lock = threading.RLock()
        self._close_after = False
        self._since_sweep = 0
        self._file: StoreFile | None = None
        self._identity: tuple[int, int] | None = None
        self._look_at = 0.0
        self._waits = self._timeout
        self._number = 0
        self._cache = RowCache()
        survive_forks(self)
        with self._reading("open"):
            pass

    def reset(self, account: str, *, entry: Entry | None = None) -> Balance | None:
        try:
            return super().reset(account, entry=entry)
        except StoreError as error:
            if not isinstance(error.__cause__, MalformedAccount):
                raise
        self._run(lambda rows: rows.mend_account(account))
        return super().reset(account, entry=entry)

    def delete(self, account: str, *, entry: Entry | None = None) -> bool:
        try:
            return super().delete(account, entry=entry)
        except StoreError as error:
            if not isinstance(error.__cause__, MalformedAccount):
                raise
        return self._run(lambda rows: rows.drop_account(account, entry))

    def close(self) -> None:
        if _is_owned(self._lock):
            # A signal handler must not take the connection from the verb that it interrupts: the next does.
            self._close_after = True
            return
        with self._lock:
            self._let_go()

    def _run(self, work: Callable[[TableRows], _T], *, even_frozen: bool = False) -> _T:
        # An interrupt may come between any two instructions, and must not leave the lock taken.
        lock = self._lock
        if _is_owned(lock):
            raise nested(public_url(self.url))
        try:
            con = self._enter("write")
            try:
                rows = self._begin(con, even_frozen)
                result = work(rows)
                self._cache.commit()
                return result
            finally:
                _roll_back(con)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(explain(error, "write", self._folder, self._timeout)) from error
        finally:
            try:  # noqa: SIM105 - an interrupt in a `suppress` would leave the lock taken
                lock.release()
            except RuntimeError:  # it was never taken
                pass

    @contextmanager
    def _reading(self, doing: str = "read") -> Iterator[TableRows]:
        """See one state of the store throughout; waits for nobody."""
        if self._is_nested():
            with self._apart() as rows:
                yield rows
            return
        lock = self._lock
        if _is_owned(lock):
            raise nested(public_url(self.url))
        try:
            con = self._enter(doing)
            try:
                con.execute("BEGIN")
                yield TableRows(con.execute, self._number, self._clock(), RowCache())
            finally:
                _roll_back(con)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(explain(error, doing, self._folder, self._timeout)) from error
        finally:
            try:  # noqa: SIM105 - see above
                lock.release()
            except RuntimeError:
                pass

    def _is_nested(self) -> bool:
        """Return whether this thread is in the middle of a verb, which a signal handler has interrupted."""
        return _is_owned(self._lock) and self._file is not None

    @contextmanager
    def _snapshot(self) -> Iterator[TableRows]:
        with self._reading():
            pass  # so that the project's number is known
        with self._apart() as rows:
            yield rows

    @contextmanager
    def _apart(self) -> Iterator[TableRows]:
        """Read over a connection of its own, which sees nothing of an interrupted verb."""
        try:
            with closing(connect(self._folder, self._timeout)) as con:
                con.execute("BEGIN")
                yield TableRows(con.execute, self._number, self._clock(), RowCache())
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(explain(error, "read", self._folder, self._timeout)) from error

    def _enter(self, doing: str) -> sqlite3.Connection:
        """Take the lock, waiting for the timeout at most, and return the connection.

        Raises:
            StoreError: the lock did not come in time.
        """
        lock = self._lock
        waits = self._timeout
        if not lock.acquire(blocking=False):
            until = time.monotonic() + waits
            if not take(lock, until):
                raise StoreError(
                    f"cannot {doing} the store in {self._folder}: other threads of this process kept it busy "
                    f"for {waits:g} s, as where another process holds its lock; try again, or raise "
                    "?timeout="
                )
            waits = max(0.0, until - time.monotonic())
        con = self._open(waits).connection
        _roll_back(con)  # what an interrupt has left
        # SQLite waits for what is left of the time. Not for each verb: it costs a statement.
        if not 0.9 * self._waits <= waits <= 1.1 * self._waits + 0.01:
            con.execute(f"PRAGMA busy_timeout = {int(waits * 1_000)}")
            self._waits = waits
        return con

    def _begin(self, con: sqlite3.Connection, even_frozen: bool) -> TableRows:
        if not self._number:
            self._number = _project_number(con, self.project)
        execute = self._cache.begin(con)
        rows = TableRows(execute, self._number, self._clock(), self._cache)
        note = rows.frozen
        if note is not None and not even_frozen:
            raise frozen_error(self, note)
        self._since_sweep += 1
        if self._since_sweep >= _SWEEP_EVERY and note is None:
            self._since_sweep = 0
            rows.sweep(max(0, rows.now - self.retention_ms))
        return rows

    def _open(self, waits: float) -> StoreFile:
        if self._close_after:
            self._close_after = False
            self._let_go()
        now = time.monotonic()
        if now >= self._look_at:
            if self._identity is not None and database_identity(self._database) != self._identity:
                self._let_go()
                raise StoreError(
                    f"the store in {self._folder} was deleted or replaced while this program used it: "
                    "nothing was changed. Put its folder back, or start the program again to use what is "
                    "there now"
                )
            self._look_at = now + _LOOK_EVERY
        if self._file is None:
            file = open_file(self._folder, waits)
            self._waits = waits
            self._number = 0
            self._identity = database_identity(self._database)
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

_INHERITED: list[StoreFile] = []


def _roll_back(con: sqlite3.Connection) -> None:
    """End a transaction that was not committed, if there is one."""
    if con.in_transaction:
        with suppress(sqlite3.Error):  # what ended the transaction matters, not that it has ended
            con.execute("ROLLBACK")


def _find_project(con: sqlite3.Connection, project: str) -> int:
    """Return a project's number, 0 if nothing was written of it yet."""
    found = con.execute(tables.FIND_PROJECT, (project,)).fetchone()
    return 0 if found is None else int(found[0])


def _project_number(con: sqlite3.Connection, project: str) -> int:
    con.execute(tables.ADD_PROJECT, (project,))  # another process may be faster
    return _find_project(con, project)
