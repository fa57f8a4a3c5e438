"""`disk://FOLDER`: balances in a folder, shared by every process of this machine.

The folder is a diskcache, hardened: rows are JSON text behind a Disk that refuses pickle, nothing is
ever evicted, folders that this makes are 0700, and every verb is one immediate SQLite transaction.
A killed process loses nothing that a verb had returned for; a power cut may lose the last moments
(WAL with synchronous=NORMAL).
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote

from budgetguard.errors import ConfigurationError, StoreError
from budgetguard.holds import Hold
from budgetguard.learning import Observations
from budgetguard.rows import AccountRow, HoldRow, copy_account, copy_hold
from budgetguard.stores.embedded import EmbeddedStore
from budgetguard.stores.forking import survive_forks
from budgetguard.stores.rowcache import RowCache, dump, parse
from budgetguard.windows import Clock, Milliseconds

DEFAULT_LOCK_TIMEOUT: Final = 60.0
"""Seconds that a verb waits for another process's transaction before it raises StoreError."""

_PAGE = 500
_SWEEP_EVERY = 512
_PARSED_AT_MOST = 1_024
_ACCOUNT_FIELDS: Final = frozenset(AccountRow.__annotations__)
_HOLD_FIELDS: Final = frozenset(HoldRow.__annotations__)
_ANSWER_FIELDS: Final = frozenset({"hold"})
_Fields: TypeAlias = frozenset[str] | None


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
        scope = quote(project, safe="")
        self._account_key = f"a:{scope}:"
        self._hold_key = f"h:{scope}:"
        self._answer_key = f"r:{scope}:"
        self._observed_key = f"o:{scope}:"
        # One thread at a time uses the connection and waits for SQLite's lock, whose waiting is a poll.
        self._lock = threading.Lock()
        self._since_sweep = 0
        self._cache: RowCache | None = None
        # What a text says never changes, and most texts read are those that this process wrote last.
        self._parsed: dict[_Fields, dict[object, Any]] = {
            _ACCOUNT_FIELDS: {},
            _HOLD_FIELDS: {},
            _ANSWER_FIELDS: {},
            None: {},
        }
        survive_forks(self)
        with self._use("open"):
            pass

    def observations(self, model: str) -> Observations:
        with self._use("read") as cache:
            return _DiskRows(cache, self).load_observations(model)

    def close(self) -> None:
        with self._lock:
            cache, self._cache = self._cache, None
            if cache is not None:
                cache.close()

    @contextmanager
    def _transaction(self, hold: Hold | None = None) -> Iterator[_DiskRows]:
        # One generator for lock, errors and transaction: three took a tenth of a call.
        with self._lock:
            try:
                cache = self._open()
                con = cache.connection
                try:
                    con.execute("BEGIN IMMEDIATE")
                    rows = _DiskRows(cache, self)
                    if hold is not None:
                        rows.expect(hold)
                    yield rows
                    self._since_sweep += 1
                    if self._since_sweep >= _SWEEP_EVERY:
                        self._since_sweep = 0
                        self._sweep(cache)
                    con.execute("COMMIT")
                finally:
                    if con.in_transaction:  # an interrupt is an exception too
                        con.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise StoreError(_explain(error, "write", self._folder, self._timeout)) from error

    def _sweep(self, cache: RowCache) -> None:
        now = self._clock()
        cache.sweep_expired(now / 1000)
        # A hold's key begins with when it was made, which is before it ended.
        horizon = max(0, now - self._retention)
        cache.sweep_old(self._hold_key, f"{self._hold_key}{horizon:012x}", horizon)

    def _peek(self, account: str) -> AccountRow | None:
        with self._use("read") as cache:
            return _DiskRows(cache, self).load_account(account)

    def _scan_accounts(self, prefix: str) -> Iterator[tuple[str, AccountRow]]:
        start = self._account_key + prefix
        for key, row in self._scan(start, _after(start), _ACCOUNT_FIELDS):
            yield key.removeprefix(self._account_key), row

    def _scan_holds(self, since: Milliseconds, until: Milliseconds | None) -> Iterator[tuple[str, HoldRow]]:
        start = f"{self._hold_key}{since:012x}"
        end = _after(self._hold_key) if until is None else f"{self._hold_key}{until:012x}"
        for key, row in self._scan(start, end, _HOLD_FIELDS):
            yield key.removeprefix(self._hold_key), row

    def _scan(self, start: str, end: str, fields: frozenset[str]) -> Iterator[tuple[str, Any]]:
        """Yield the rows with start <= key < end, in pages."""
        after: str | None = None
        while True:
            with self._use("read") as cache:
                page = cache.page(start if after is None else after, end, _PAGE, after=after is not None)
                for key, row in page:
                    _checked(key, row, fields)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    @contextmanager
    def _use(self, doing: str) -> Iterator[RowCache]:
        with self._lock:
            try:
                yield self._open()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(_explain(error, doing, self._folder, self._timeout)) from error

    def _open(self) -> RowCache:
        if self._cache is None:
            _make_private(self._folder)
            self._cache = _open_cache(self._folder, self._timeout)
        return self._cache

    def _before_fork(self) -> None:
        if self._cache is not None:
            self._cache.close()

    def _after_fork_in_child(self) -> None:
        if self._cache is not None and self._cache.is_open():
            # C code forked without the hook above. SQLite forbids to close what the parent opened.
            self._cache.abandon()
            _INHERITED.append(self._cache)
            self._cache = None


class _DiskRows:
    """Rows of one project in an open transaction."""

    def __init__(self, cache: RowCache, store: DiskStore) -> None:
        self._cache = cache
        self._store = store
        self._loaded: dict[
            str, tuple[Any, float | None] | None
        ] = {}  # text and expiry, None where nothing is

    def expect(self, hold: Hold) -> None:
        """Load a hold and its accounts at once: each statement costs as much as the rows it finds."""
        self._load(self._hold_key(hold.id), *(self._account_key(charge.account) for charge in hold.charges))

    def load_account(self, name: str) -> AccountRow | None:
        row: AccountRow | None = self._row(self._account_key(name), _ACCOUNT_FIELDS)
        return None if row is None else copy_account(row)

    def save_account(self, name: str, row: AccountRow) -> None:
        idle = row["ephemeral"] and not row["open"]
        expires = (row["updated"] + self._store._retention) / 1000 if idle else None
        self._save(self._account_key(name), row, expires, _ACCOUNT_FIELDS)

    def remove_account(self, name: str) -> None:
        key = self._account_key(name)
        self._cache.remove(key)
        self._loaded[key] = None

    def load_hold(self, hold_id: str) -> HoldRow | None:
        row: HoldRow | None = self._row(self._hold_key(hold_id), _HOLD_FIELDS)
        return None if row is None else copy_hold(row)

    def save_hold(self, hold_id: str, row: HoldRow) -> None:
        self._save(self._hold_key(hold_id), row, None, _HOLD_FIELDS)

    def load_answer(self, request_id: str) -> str | None:
        found: dict[str, str] | None = self._row(self._answer_key(request_id), _ANSWER_FIELDS)
        return None if found is None else found["hold"]

    def save_answer(self, request_id: str, hold_id: str) -> None:
        hold = self.load_hold(hold_id)
        ends = 0 if hold is None else hold["expires"]
        expires = (ends + self._store._retention) / 1000
        self._save(self._answer_key(request_id), {"hold": hold_id}, expires, _ANSWER_FIELDS)

    def load_observations(self, model: str) -> Observations:
        counts: Observations | None = self._row(self._observed_key(model), None)
        return counts or {}

    def save_observations(self, model: str, counts: Observations) -> None:
        self._save(self._observed_key(model), counts, None, None)

    def _row(self, key: str, fields: _Fields) -> Any:
        if key not in self._loaded:
            self._load(key)
        found = self._loaded[key]
        if found is None:
            return None
        text = found[0]
        row = self._store._parsed[fields].get(text)
        if row is None:
            row = _checked(key, parse(key, text), fields)
            self._remember(text, row, fields)
        return row

    def _load(self, *keys: str) -> None:
        loaded = self._loaded
        for key in keys:
            loaded[key] = None
        for key, value, expires in self._cache.load(keys):
            loaded[key] = value, expires

    def _save(self, key: str, row: Any, expires: float | None, fields: _Fields) -> None:
        if key not in self._loaded:
            self._load(key)
        stored = self._loaded[key]
        text = dump(row)
        if stored is None:
            self._cache.insert(key, text, expires)
        elif stored[1] == expires:
            self._cache.update(key, text)
        else:
            self._cache.update_expiry(key, text, expires)
        self._loaded[key] = text, expires
        self._remember(text, row, fields)

    def _remember(self, text: object, row: Any, fields: _Fields) -> None:
        parsed = self._store._parsed[fields]
        if len(parsed) >= _PARSED_AT_MOST:
            parsed.clear()
        parsed[text] = row

    def _account_key(self, name: str) -> str:
        return self._store._account_key + name

    def _hold_key(self, hold_id: str) -> str:
        return self._store._hold_key + hold_id

    def _observed_key(self, model: str) -> str:
        return self._store._observed_key + _quoted(model)

    def _answer_key(self, request_id: str) -> str:
        return self._store._answer_key + _quoted(request_id)


def _quoted(name: str) -> str:
    # Names from outside may hold lone surrogates, which are no key of SQLite's.
    return quote(name, safe="", errors="surrogatepass")


_LOCKS: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_INHERITED: list[RowCache] = []


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


def _open_cache(folder: Path, timeout: float) -> RowCache:
    give_up = time.monotonic() + timeout
    while True:
        try:
            return RowCache(folder, timeout)
        except sqlite3.OperationalError as error:
            # Several processes making one database at once meet locks that SQLite does not wait for.
            if error.sqlite_errorcode & 0xFF not in _LOCKS or time.monotonic() >= give_up:
                raise
            time.sleep(0.01)


def _checked(key: str, row: Any, fields: _Fields) -> Any:
    if not isinstance(row, dict) or (fields is not None and row.keys() != fields):
        raise sqlite3.DataError(f"malformed row {key!r}: it has not the fields that it should have")
    return row


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
    elif kind.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")) or isinstance(error, sqlite3.DataError):
        remedy = (
            "its cache.db is not a budgetguard store, or is damaged: "
            "move the folder away or restore it from a backup; nothing was changed"
        )
    elif isinstance(error, NotADirectoryError | FileExistsError):
        remedy = "there is a file where the folder should be: choose another folder"
    else:
        remedy = "see the cause"
    return f"cannot {doing} the store in {folder}: {remedy} ({type(error).__name__}: {error})"
