"""`memory://`: balances in this process, gone with it. For tests and for programs of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nsmallest
from operator import itemgetter
from typing import Final, TypeVar

from budgetguard.core.accounts import Document
from budgetguard.core.holds import Entry
from budgetguard.core.process import store_verbs
from budgetguard.core.rows import AccountRow, HoldRow, gone_since
from budgetguard.core.usage import Observations
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.errors import ConfigurationError
from budgetguard.stores.embedded import EmbeddedStore, StoredRows, copy_account, copy_hold
from budgetguard.stores.locks import Forkable, nested, survive_forks
from budgetguard.stores.transfer import frozen_error
from budgetguard.stores.urls import shown_url

_T = TypeVar("_T")
_Row = TypeVar("_Row")

_SWEEP_EVERY: Final = 1_024
MOST_RECORDS: Final = 20_000
"""Records of ended calls, at most about so many: 1.5 kB each, in a process that may run for months."""


@dataclass(slots=True)
class _Tables:
    """What is committed. Rows are replaced when they change, never changed in place."""

    accounts: dict[str, AccountRow] = field(default_factory=dict)
    holds: dict[str, HoldRow] = field(default_factory=dict)
    open: dict[str, HoldRow] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    observed: dict[str, Observations] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    scopes: Document = field(default_factory=Document)
    frozen: str | None = None
    swept_to: str = ""

    def copy(self) -> _Tables:
        """Return tables of their own, with the same rows."""
        return _Tables(
            self.accounts.copy(),
            self.holds.copy(),
            self.open.copy(),
            self.answers.copy(),
            self.observed.copy(),
            self.entries.copy(),
            self.scopes,
            self.frozen,
            self.swept_to,
        )


@store_verbs
class MemoryStore(EmbeddedStore, Forkable):
    """One project's rows in dictionaries behind a lock.

    Args:
        url: `memory://`; each opening is a store of its own.

    Raises:
        ConfigurationError: something after `memory://`.
    """

    blocking = False

    def __init__(self, url: str, *, project: str, clock: Clock, retention: str) -> None:
        if url.removeprefix("memory://"):
            raise ConfigurationError(
                f"store {shown_url(url)!r}: memory:// takes no name; each opening is a store of its own"
            )
        super().__init__(url, project=project, clock=clock, retention=retention)
        self._tables = _Tables()
        self._lock = threading.RLock()
        self._inside = False
        self._committed: _MemoryRows | None = None
        self._since_sweep = 0
        survive_forks(self)

    def close(self) -> None:
        """Do nothing: there is nothing to close but the balances themselves."""

    def _run(self, work: Callable[[StoredRows], _T], *, even_frozen: bool = False) -> _T:
        with self._lock:
            if self._committed is not None:
                self._complete()
            if self._inside:
                raise nested(self.url)
            self._inside = True
            try:
                rows = _MemoryRows(self._clock(), self._tables, self.project)
                if rows.frozen is not None and not even_frozen:
                    raise frozen_error(self, rows.frozen)
                result = work(rows)
                self._committed = rows
                rows.apply()
                self._committed = None
                self._since_sweep += 1
                if self._since_sweep >= _SWEEP_EVERY and rows.frozen is None:
                    self._since_sweep = 0
                    self._sweep(self._clock() - self.retention_ms)
            finally:
                self._inside = False
        return result

    @contextmanager
    def _reading(self) -> Iterator[_MemoryRows]:
        """Lock the rows, with all that is committed in its place."""
        with self._lock:
            if self._committed is not None:
                self._complete()
            yield _MemoryRows(self._clock(), self._tables, self.project)

    @contextmanager
    def _snapshot(self) -> Iterator[_MemoryRows]:
        with self._reading():
            copy = self._tables.copy()
        yield _MemoryRows(self._clock(), copy, self.project)

    def _complete(self) -> None:
        # An interrupt may come between any two of these changes. Then whoever comes next makes them again.
        if self._committed is not None:
            self._committed.apply()
            self._committed = None

    def _sweep(self, horizon: Milliseconds) -> None:
        tables = self._tables
        ended = {i: gone for i, row in tables.holds.items() if (gone := gone_since(row)) is not None}
        old = [hold_id for hold_id, gone in ended.items() if gone < horizon]
        surplus = len(ended) - len(old) - MOST_RECORDS
        if surplus > 0:
            old = nsmallest(len(old) + surplus, ended, key=lambda hold_id: (ended[hold_id], hold_id))
        made_before = f"{self._clock():012x}"
        for hold_id in old:
            del tables.holds[hold_id]
            tables.open.pop(hold_id, None)
            if tables.swept_to < hold_id < made_before:
                tables.swept_to = hold_id
        for request_id in [answer for answer, of in tables.answers.items() if of not in tables.holds]:
            del tables.answers[request_id]
        idle = [
            name
            for name, row in tables.accounts.items()
            if row["ephemeral"] and not row["opened"] and row["updated"] < horizon
        ]
        for name in idle:
            del tables.accounts[name]


class _MemoryRows:
    """Rows copied on the way out and kept aside on the way in: a verb that raises has changed nothing."""

    __slots__ = (
        "_accounts",
        "_answers",
        "_entries",
        "_holds",
        "_observed",
        "_project",
        "_tables",
        "frozen",
        "now",
        "scopes",
        "swept_to",
    )

    def __init__(self, now: Milliseconds, tables: _Tables, project: str) -> None:
        self.now = now
        self.frozen = tables.frozen
        self.swept_to = tables.swept_to
        self.scopes = tables.scopes
        self._tables = tables
        self._project = project
        self._accounts: dict[str, AccountRow | None] = {}
        self._holds: dict[str, HoldRow] = {}
        self._answers: dict[str, str] = {}
        self._observed: dict[str, Observations] = {}
        self._entries: dict[str, Entry] = {}

    def apply(self) -> None:
        """Put what was saved in its place; doing it again changes nothing."""
        tables = self._tables
        for name, account in self._accounts.items():
            if account is None:
                tables.accounts.pop(name, None)
            else:
                tables.accounts[name] = account
        for hold_id, hold in self._holds.items():
            tables.holds[hold_id] = hold
            if hold["state"] == "held":
                tables.open[hold_id] = hold
            else:
                tables.open.pop(hold_id, None)
        tables.answers.update(self._answers)
        tables.observed.update(self._observed)
        for entry_id, entry in self._entries.items():
            tables.entries.setdefault(entry_id, entry)
        tables.scopes = self.scopes
        tables.frozen = self.frozen
        tables.swept_to = self.swept_to

    def freeze(self, note: str | None) -> None:
        self.frozen = note

    def note_swept(self, hold_id: str) -> None:
        self.swept_to = max(self.swept_to, hold_id)

    def save_scopes(self, document: Document) -> None:
        self.scopes = document

    def add_entry(self, entry: Entry) -> None:
        self._entries[entry.id] = entry

    def page_of_entries(self, start: str) -> list[tuple[str, Entry]]:
        return _between(self._tables.entries, start, None)

    def load_account(self, name: str) -> AccountRow | None:
        row = self._tables.accounts.get(name)
        return None if row is None else copy_account(row)

    def save_account(self, name: str, row: AccountRow) -> None:
        self._accounts[name] = row

    def remove_account(self, name: str) -> None:
        self._accounts[name] = None

    def load_hold(self, hold_id: str) -> HoldRow | None:
        row = self._tables.holds.get(hold_id)
        return None if row is None else copy_hold(row)

    def save_hold(self, hold_id: str, row: HoldRow) -> None:
        self._holds[hold_id] = row

    def open_holds(self, account: str) -> Mapping[str, Milliseconds]:
        return {i: row["expires"] for i, row in self._tables.open.items() if account in row["accounts"]}

    def load_answer(self, request_id: str) -> str | None:
        return self._tables.answers.get(request_id)

    def save_answer(self, request_id: str, hold_id: str) -> None:
        self._answers[request_id] = hold_id

    def load_observations(self, model: str) -> Observations:
        found = self._observed.get(model)
        return self._tables.observed.get(model, {}) if found is None else found

    def count_models(self) -> int:
        return len(self._tables.observed.keys() | self._observed.keys())

    def save_observations(self, model: str, counts: Observations) -> None:
        self._observed[model] = counts

    def page_of_accounts(self, start: str, end: str | None) -> list[tuple[str, AccountRow | Exception]]:
        return [*_between(self._tables.accounts, start, end)]

    def page_of_holds(self, start: str, end: str | None) -> list[tuple[str, HoldRow]]:
        return _between(self._tables.holds, start, end)

    def page_of_open(self, start: str, account: str | None) -> list[tuple[str, HoldRow]]:
        found = _between(self._tables.open, start, None)
        return [
            (i, row)
            for i, row in found
            if (row["accounts"] if account is None else account in row["accounts"])
        ]

    def answers_between(self, first: str, last: str) -> Mapping[str, list[str]]:
        found: dict[str, list[str]] = {}
        for request_id, hold_id in self._tables.answers.items():
            if first <= hold_id <= last:
                found.setdefault(hold_id, []).append(request_id)
        return found

    def list_observations(self) -> list[tuple[str, Observations]]:
        return sorted(self._tables.observed.items())

    def projects(self, account: str | None) -> list[str]:
        accounts = self._tables.accounts
        return [self._project] if (accounts if account is None else account in accounts) else []


def _between(rows: Mapping[str, _Row], start: str, end: str | None) -> list[tuple[str, _Row]]:
    """Return all rows from `start` to before `end`: the pages of what is in memory have no bound."""
    found = [(name, row) for name, row in rows.items() if name >= start and (end is None or name < end)]
    return sorted(found, key=itemgetter(0))
