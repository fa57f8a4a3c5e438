"""Rows of the ledger, read from the disk store's tables and written to them, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from budgetguard.core.accounts import Document, unit_of
from budgetguard.core.booking import held_of
from budgetguard.core.holds import Entry
from budgetguard.core.money import MAX_SUM
from budgetguard.core.rows import AccountRow, HoldRow
from budgetguard.core.usage import Observations
from budgetguard.core.windows import Milliseconds
from budgetguard.stores import sqlite_tables as tables
from budgetguard.stores.embedded import copy_account, copy_hold
from budgetguard.stores.sqlite_tables import (
    MalformedAccount,
    account_in,
    budget_of,
    counts_in,
    counts_out,
    end_out,
    hold_in,
    hold_out,
    holding_of,
    malformed,
    quoted,
    spending_of,
    spending_out,
    text_in,
    text_out,
    units_out,
)

_REMEMBERED: Final = 8_192
"""Accounts, and open holds, of which rows are remembered."""
_LAST: Final = b""
"""Comes after every text, as SQLite sorts."""


class RowCache:
    """Rows as one connection has last seen them, which is as they are until another one commits.

    SQLite tells by a number whether another one has. Rows that a transaction loads and saves come in here at
    once; unless it commits, nothing of it is used again.
    """

    __slots__ = ("_begun", "_connection", "_version", "accounts", "execute", "holds", "project")

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self.execute: Callable[..., sqlite3.Cursor]
        self._begun = 0
        self._version: int | None = None
        self.project: tuple[str, str | None, Document] | None = None
        self.accounts: dict[str, AccountRow | None] = {}
        self.holds: dict[str, HoldRow] = {}

    def begin(self, connection: sqlite3.Connection) -> Callable[..., sqlite3.Cursor]:
        """Begin a write transaction, and forget what may have changed; return what runs its statements."""
        if connection is not self._connection:  # of another one the number says nothing
            self._connection, self._version = connection, None
            # One cursor for all: making one costs a tenth of what it then does.
            self.execute = connection.cursor().execute
        execute = self.execute
        execute("BEGIN IMMEDIATE")
        self._begun = execute("PRAGMA data_version").fetchone()[0]
        if self._version != self._begun:
            self.clear()
        self._version = None
        if len(self.accounts) >= _REMEMBERED:
            self.accounts.clear()
        while len(self.holds) >= _REMEMBERED:
            del self.holds[next(iter(self.holds))]
        return execute

    def commit(self) -> None:
        """Commit the transaction, and keep what it loaded and saved."""
        self.execute("COMMIT")
        self._version = self._begun

    def clear(self) -> None:
        """Forget all rows."""
        self.project = None
        self.accounts.clear()
        self.holds.clear()


class TableRows:
    """Rows of one project in an open transaction.

    Args:
        execute: runs a statement in it.
        project: the project's number.
        now: when the transaction takes place (milliseconds).
        cache: of the connection, in a write transaction.
    """

    __slots__ = ("_cache", "_execute", "_project", "_stored", "now")

    def __init__(
        self, execute: Callable[..., sqlite3.Cursor], project: int, now: Milliseconds, cache: RowCache
    ) -> None:
        self.now = now
        self._execute = execute
        self._project = project
        self._cache = cache
        self._stored: dict[str, bool] = {}  # holds that have a row, and whether they are open in it

    @property
    def frozen(self) -> str | None:
        """The note of a frozen project, None if it is not frozen."""
        return self._about_project()[1]

    @property
    def swept_to(self) -> str:
        """The greatest id of a hold whose record was swept; empty if none was."""
        return self._about_project()[0]

    @property
    def scopes(self) -> Document:
        """The project's scopes."""
        return self._about_project()[2]

    def _about_project(self) -> tuple[str, str | None, Document]:
        found = self._cache.project
        if found is None:
            row = self._execute(tables.LOAD_PROJECT, (self._project,)).fetchone() or ("", None, 0, "")
            found = self._cache.project = row[0], row[1], Document(row[2], row[3])
        return found

    def save_scopes(self, document: Document) -> None:
        """Replace the project's scopes."""
        self._execute(tables.SAVE_SCOPES, (document.revision, document.rules, self._project))
        self._cache.project = None

    def add_entry(self, entry: Entry) -> None:
        """Add an entry to the audit trail; one of that id counts once."""
        self._execute(tables.ADD_ENTRY, (self._project, entry.id, entry.text))

    def page_of_entries(self, start: str) -> list[tuple[str, Entry]]:
        """Return a page of the audit trail by the entries' ids."""
        found = self._execute(tables.PAGE_OF_ENTRIES, (self._project, start))
        return [(entry_id, Entry(entry_id, text)) for entry_id, text in found]

    def freeze(self, note: str | None) -> None:
        """Store the note of a frozen project; None removes it."""
        self._execute(tables.SAVE_FROZEN, (note, self._project))
        self._cache.project = None

    def note_swept(self, hold_id: str) -> None:
        """Store that the record of a hold was swept."""
        self._execute(tables.SAVE_SWEPT, (hold_id, self._project))
        self._cache.project = None

    def load_account(self, name: str) -> AccountRow | None:
        cached = self._cache.accounts
        if name in cached:
            row = cached[name]
        else:
            found = self._execute(tables.LOAD_ACCOUNT, (self._project, name)).fetchone()
            row = cached[name] = None if found is None else account_in(name, found)
        return None if row is None else copy_account(row)

    def save_account(self, name: str, row: AccountRow) -> None:
        cached, key = self._cache.accounts, (self._project, name)
        before, budget, spending, holding = (
            cached.get(name),
            budget_of(row),
            spending_of(row),
            holding_of(row),
        )
        if before is None or budget_of(before) != budget:
            self._execute(tables.REPLACE_ACCOUNT, (*key, *budget, *spending_out(spending), *holding))
        elif spending_of(before) != spending:
            self._execute(tables.UPDATE_SPENDING, (*spending_out(spending), *holding, *key))
        else:
            self._execute(tables.UPDATE_HOLDING, (*holding, *key))
        cached[name] = row

    def remove_account(self, name: str) -> None:
        self._execute(tables.REMOVE_ACCOUNT, (self._project, name))
        self._cache.accounts[name] = None

    def mend_account(self, name: str) -> None:
        """Set what an account has spent to nothing, whatever stands there, and what it holds to its holds."""
        holds = [self.load_hold(hold_id) for hold_id in self.open_holds(name)]
        held = sum(held_of(hold, unit_of(name)) for hold in holds if hold is not None)
        self._execute(tables.MEND_ACCOUNT, (min(held, MAX_SUM), len(holds), self._project, name))
        self._cache.clear()

    def drop_account(self, name: str, entry: Entry | None) -> bool:
        """Delete an account, whatever stands there, and return whether it existed; its holds are nobody's."""
        for hold_id in self.open_holds(name):
            hold = self.load_hold(hold_id)
            if hold is not None:
                del hold["accounts"][name]
                self.save_hold(hold_id, hold)
        self._cache.accounts[name] = None
        if entry is not None:
            self.add_entry(entry)
        return self._execute(tables.REMOVE_ACCOUNT, (self._project, name)).rowcount > 0

    def load_hold(self, hold_id: str) -> HoldRow | None:
        row = self._cache.holds.get(hold_id)
        if row is not None:
            return copy_hold(row)
        key = (self._project, hold_id)
        found = self._execute(tables.LOAD_HOLD, (*key, *key)).fetchone()
        if found is None:
            return None
        row = hold_in(hold_id, found[1:])
        self._stored[hold_id] = row["state"] == "held"
        return row

    def save_hold(self, hold_id: str, row: HoldRow) -> None:
        cached, project = self._cache.holds, self._project
        was_open = True if hold_id in cached else self._stored.get(hold_id)
        if row["state"] != "held":
            if was_open is None:
                self._execute(tables.INSERT_ENDED_HOLD, (project, hold_id, *hold_out(row), *end_out(row)))
            else:
                self._execute(tables.END_HOLD, (*end_out(row), project, was_open, hold_id))
            cached.pop(hold_id, None)
            self._stored[hold_id] = False
            return
        request_id = None if row["request_id"] is None else text_out(row["request_id"])
        if not was_open:
            if was_open is not None:  # only an older export has it open again
                self._execute(tables.SWEEP_HOLD, (project, hold_id))
            self._execute(
                tables.INSERT_OPEN_HOLD, (project, hold_id, *hold_out(row), request_id, units_out(row))
            )
        else:
            accounts = counts_out(row["accounts"])
            self._execute(tables.CHANGE_OPEN_HOLD, (accounts, request_id, project, hold_id))
        cached[hold_id] = row

    def open_holds(self, account: str) -> dict[str, Milliseconds]:
        # SQLite looks for the quoted name as a part of the text, which may be the end of a longer one.
        named = f"{quoted(account)}:"
        return {
            hold_id: expires
            for hold_id, expires, accounts in self._execute(tables.OPEN_OF_ACCOUNT, (self._project, named))
            if account in counts_in(accounts, f"of hold {hold_id!r}")
        }

    def load_answer(self, request_id: str) -> str | None:
        found = self._execute(tables.LOAD_ANSWER, (self._project, text_out(request_id))).fetchone()
        if found is None:
            return None
        hold_id = found[0]
        if not isinstance(hold_id, str):
            raise malformed(f"answer {request_id!r}", "its hold's id is no text")
        return hold_id

    def save_answer(self, request_id: str, hold_id: str) -> None:
        self._execute(tables.SAVE_ANSWER, (self._project, text_out(request_id), hold_id))

    def load_observations(self, model: str) -> Observations:
        found = self._execute(tables.LOAD_OBSERVED, (self._project, text_out(model))).fetchone()
        return {} if found is None else counts_in(found[0], f"observation {model!r}")

    def count_models(self) -> int:
        """Return of how many models something was observed."""
        found: int = self._execute(tables.COUNT_MODELS, (self._project,)).fetchone()[0]
        return found

    def save_observations(self, model: str, counts: Observations) -> None:
        self._execute(tables.SAVE_OBSERVED, (self._project, text_out(model), counts_out(counts)))

    def page_of_accounts(self, start: str, end: str | None) -> list[tuple[str, AccountRow | Exception]]:
        page: list[tuple[str, AccountRow | Exception]] = []
        span = (start, _LAST if end is None else end)
        for name, *values in self._execute(tables.PAGE_OF_ACCOUNTS, (self._project, *span)):
            try:
                page.append((name, account_in(name, tuple(values))))
            except MalformedAccount as error:
                page.append((name, error))
        return page

    def page_of_holds(self, start: str, end: str | None) -> list[tuple[str, HoldRow]]:
        span = (self._project, start, _LAST if end is None else end)
        found = self._execute(tables.PAGE_OF_HOLDS, (*span, *span))
        return [(row[0], hold_in(row[0], row[1:])) for row in found]

    def page_of_open(self, start: str, account: str | None) -> list[tuple[str, HoldRow]]:
        # Every hold that is on an account has the colon between that account's name and its window.
        named = ":" if account is None else f"{quoted(account)}:"
        found = self._execute(tables.PAGE_OF_OPEN, (self._project, named, start))
        return [(row[0], hold_in(row[0], row[1:])) for row in found]

    def answers_between(self, first: str, last: str) -> Mapping[str, list[str]]:
        found: defaultdict[str, list[str]] = defaultdict(list)
        for hold_id, request_id in self._execute(tables.ANSWERS_BETWEEN, (self._project, first, last)):
            found[hold_id].append(text_in(request_id, f"answer of hold {hold_id!r}"))
        return found

    def list_observations(self) -> list[tuple[str, Observations]]:
        found = self._execute(tables.LIST_OBSERVED, (self._project,)).fetchall()
        models = [(text_in(model, "observation"), counts) for model, counts in found]
        return [(model, counts_in(counts, f"observation {model!r}")) for model, counts in models]

    def sweep(self, horizon: Milliseconds) -> None:
        """Delete some of what ended, or was used last, before the horizon; few enough to delay no call."""
        project, made_before = self._project, f"{horizon:012x}"
        old = self._execute(tables.SWEPT_HOLDS, (project, made_before, horizon)).fetchall()
        for (hold_id,) in old:
            self._execute(tables.SWEEP_HOLD, (project, hold_id))
        if old:
            self.note_swept(old[-1][0])
        self._execute(tables.SWEEP_OPEN_ON_NOTHING, (project, made_before, horizon))
        self._execute(tables.SWEEP_ANSWERS, (project, project, made_before))
        for (name,) in self._execute(tables.IDLE_ACCOUNTS, (project, horizon, horizon)).fetchall():
            self.remove_account(name)
        self._cache.clear()

    def projects(self, account: str | None) -> list[str]:
        if account is None:
            found = self._execute(tables.LIST_PROJECTS).fetchall()
        else:
            found = self._execute(tables.LIST_PROJECTS_WITH, (account,)).fetchall()
        return [name for (name,) in found]
