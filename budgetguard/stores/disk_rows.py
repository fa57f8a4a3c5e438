"""Rows of the ledger, read from the disk store's tables and written to them, inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from budgetguard.core.learning import Observations
from budgetguard.core.money import MAX_SUM, Nanos
from budgetguard.core.rows import AccountRow, HoldRow
from budgetguard.core.windows import Milliseconds
from budgetguard.stores import disk_tables as tables
from budgetguard.stores.disk_tables import (
    NEVER,
    MalformedAccount,
    dump,
    malformed,
    parse,
    text_in,
    text_out,
)


class OpenHolds(dict[str, Milliseconds]):
    """An account's open holds, of which only those are loaded that a verb can mean: the due, and its own.

    It counts all of them, so that a verb costs the same however many there are. A verb that walks over
    all of them must have them loaded whole.
    """

    def __init__(self, loaded: dict[str, Milliseconds], others: int) -> None:
        super().__init__(loaded)
        self.others = others

    def __len__(self) -> int:
        return super().__len__() + self.others

    def __bool__(self) -> bool:
        return len(self) > 0


class TableRows:
    """Rows of one project in an open transaction.

    Args:
        con: the connection.
        project: the project's number.
        now: when the transaction takes place (milliseconds).
        whole: load all open holds of an account.
    """

    def __init__(
        self, con: sqlite3.Connection, project: int, now: Milliseconds, *, whole: bool = False
    ) -> None:
        self.now = now
        self._execute = con.execute
        self._project = project
        self._whole = whole
        self._numbers: dict[str, int | None] = {}
        self._due: dict[str, Milliseconds] = {}
        self._models: dict[str, dict[str, Nanos]] = {}
        self._first: dict[str, str | None] = {}
        self._held: dict[str, tuple[Milliseconds, frozenset[str]]] = {}
        self._stored_open: dict[str, bool] = {}
        self._observed: dict[str, Observations] = {}

    @property
    def moved_to(self) -> str | None:
        """Where the project has moved, None if it has not."""
        found = self._execute(tables.FIND_MOVED, (self._project,)).fetchone()
        return None if found is None else str(found[0])

    def move(self, moved_to: str | None) -> None:
        """Note where the project has moved."""
        if moved_to is None:
            self._execute(tables.REMOVE_MOVED, (self._project,))
        else:
            self._execute(tables.SAVE_MOVED, (self._project, moved_to))

    @property
    def swept_to(self) -> str:
        """The greatest id of a hold whose record was swept; empty if none was."""
        found = self._execute(tables.FIND_SWEPT, (self._project,)).fetchone()
        return "" if found is None else str(found[0])

    def note_swept(self, hold_id: str) -> None:
        """Note that the record of a hold was swept."""
        self._execute(tables.SAVE_SWEPT, (hold_id, self._project))

    def mend_account(self, name: str) -> None:
        """Set what an account has spent to nothing, whatever stands there, and what it holds to its holds."""
        found = self._execute(tables.ACCOUNT_NUMBER, (self._project, name)).fetchone()
        if found is None:
            return
        held = sum(hold["amount"] for _, hold in self._open_of(name))
        self._execute(tables.REMOVE_ALL_SPEND, found)
        self._execute(tables.MEND_ACCOUNT, (min(held, MAX_SUM), *found))

    def drop_account(self, name: str) -> bool:
        """Delete an account, whatever stands there, and tell whether it existed; its holds are nobody's."""
        found = self._execute(tables.ACCOUNT_NUMBER, (self._project, name)).fetchone()
        if found is None:
            return False
        for hold_id, hold in self._open_of(name):
            del hold["accounts"][name]
            self.save_hold(hold_id, hold)
        self._numbers[name] = found[0]
        self.remove_account(name)
        return True

    def _open_of(self, name: str) -> list[tuple[str, HoldRow]]:
        found = self._execute(tables.OPEN_OF_ACCOUNT, (self._project, _quoted(name))).fetchall()
        holds = ((hold_id, self.load_hold(hold_id)) for hold_id, _ in _naming(name, found))
        return [(hold_id, hold) for hold_id, hold in holds if hold is not None]

    def load_account(self, name: str) -> AccountRow | None:
        found = self._execute(tables.LOAD_ACCOUNT, (self._project, name)).fetchone()
        if found is None:
            self._numbers[name] = None
            return None
        number, *values = found
        spend = self._execute(tables.LOAD_SPEND, (number,)).fetchall()
        row, first, opened, due = account_of(name, tuple(values), spend)
        self._numbers[name] = number
        self._due[name] = due
        self._models[name] = row["models"].copy()
        self._first[name] = first
        row["open"] = self._open(name, number, opened, due)
        return row

    def peek_account(self, name: str) -> AccountRow | None:
        """Return an account's row for a look outside of a write transaction."""
        found = self._execute(tables.LOAD_ACCOUNT, (self._project, name)).fetchone()
        if found is None:
            return None
        spend = self._execute(tables.LOAD_SPEND, (found[0],)).fetchall()
        return self._peeked(name, found[1:], spend)

    def page_of_accounts(
        self, start: str, end: str | bytes, after: str | None
    ) -> list[tuple[str, AccountRow | MalformedAccount]]:
        """Return up to a page of accounts, start <= name < end, by name, after one of them."""
        statement = tables.FIRST_PAGE_OF_ACCOUNTS if after is None else tables.NEXT_PAGE_OF_ACCOUNTS
        span = (self._project, start if after is None else after, end, tables.PAGE)
        found = self._execute(statement, span).fetchall()
        spend: dict[int, list[tuple[Any, Any]]] = {}
        if found:
            names = (self._project, found[0][0], found[-1][0])
            for number, model, cost in self._execute(tables.SPEND_OF_PAGE, names):
                spend.setdefault(number, []).append((model, cost))
        page: list[tuple[str, AccountRow | MalformedAccount]] = []
        for name, number, *values in found:
            try:
                page.append((name, self._peeked(name, tuple(values), spend.get(number, ()))))
            except MalformedAccount as error:
                page.append((name, error))
        return page

    def page_of_holds(self, start: str, end: str | bytes, after: str | None) -> list[tuple[str, HoldRow]]:
        """Return up to a page of holds, start <= id < end, in order of their ids, after one of them."""
        statement = tables.FIRST_PAGE_OF_HOLDS if after is None else tables.NEXT_PAGE_OF_HOLDS
        span = (self._project, start if after is None else after, end)
        page = (*span, *span, tables.PAGE)
        return [(row[0], hold_of(row[0], row[1:])) for row in self._execute(statement, page)]

    def page_of_open(self, account: str | None, after: str) -> list[tuple[str, HoldRow]]:
        """Return up to a page of open holds, of an account or of any, in order of their ids, after one."""
        # Every hold that is on an account has the colon between that account's name and its window.
        named = ":" if account is None else _quoted(account)
        found = self._execute(tables.PAGE_OF_OPEN, (self._project, named, after, tables.PAGE))
        return [(row[0], hold_of(row[0], row[1:])) for row in found]

    def _peeked(self, name: str, values: tuple[Any, ...], spend: Iterable[tuple[Any, Any]]) -> AccountRow:
        row, _, opened, due = account_of(name, values, spend)
        loaded, others, _ = self._due_of(name, opened, due)
        row["open"] = OpenHolds(loaded, others)
        return row

    def save_account(self, name: str, row: AccountRow) -> None:
        number = self._number(name)
        first = self._first.get(name)
        models = row["models"]
        if first not in models:
            first = next(iter(models), None)
        due = self._next_due(name, row["open"])
        values = (
            row["limit"],
            row["duration"],
            row["timezone"],
            row["anchor"],
            row["start"],
            row["end"],
            row["window"],
            row["epoch"],
            row["spent"],
            row["held"],
            row["expired"],
            row["expiries"],
            dump(row["crossed"]),
            row["created"],
            row["updated"],
            int(row["ephemeral"]),
            None if first is None else text_out(first),
            0 if first is None else models[first],
            len(row["open"]),
            due,
        )
        if number is None:
            inserted = self._execute(tables.INSERT_ACCOUNT, (self._project, name, *values))
            number = self._numbers[name] = inserted.lastrowid
        else:
            self._execute(tables.UPDATE_ACCOUNT, (*values, number))
        before = self._models.get(name, {})
        was_first = self._first.get(name)
        for model, cost in models.items():
            if model != first and (model == was_first or before.get(model) != cost):
                self._execute(tables.SAVE_SPEND, (number, text_out(model), cost))
        for model in before:
            if model != was_first and (model == first or model not in models):
                self._execute(tables.REMOVE_SPEND, (number, text_out(model)))
        self._first[name], self._models[name], self._due[name] = first, models.copy(), due

    def remove_account(self, name: str) -> None:
        number = self._number(name)
        if number is not None:
            self._execute(tables.REMOVE_ALL_SPEND, (number,))
            self._execute(tables.REMOVE_ACCOUNT, (self._project, name))
            self._numbers[name] = None

    def load_hold(self, hold_id: str) -> HoldRow | None:
        key = (self._project, hold_id)
        found = self._execute(tables.LOAD_HOLD, (*key, *key)).fetchone()
        if found is None:
            return None
        row = hold_of(hold_id, found[1:])
        is_open = self._stored_open[hold_id] = row["state"] == "held"
        if is_open:
            self._held[hold_id] = row["expires"], frozenset(row["accounts"])
        return row

    def save_hold(self, hold_id: str, row: HoldRow) -> None:
        values = (
            row["state"],
            dump(row["accounts"]),
            dump(row["epochs"]),
            row["amount"],
            row["on_expiry"],
            row["cost"],
            row["created"],
            row["expires"],
            row["ended"],
            None if row["user"] is None else text_out(row["user"]),
            text_out(row["model"]),
            text_out(row["endpoint"]),
            row["outcome"],
            None if row["request_id"] is None else text_out(row["request_id"]),
            dump(row["usage"]),
            dump(row["tags"]),
        )
        is_open = row["state"] == "held"
        was_open = self._stored_open.get(hold_id)
        if was_open is is_open:
            self._execute(tables.UPDATE_HOLD[is_open], (*values, self._project, hold_id))
            return
        if was_open:
            self._execute(tables.REMOVE_OPEN, (self._project, hold_id))
        self._execute(tables.INSERT_HOLD[is_open], (self._project, hold_id, *values))
        self._stored_open[hold_id] = is_open

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
        found = self._execute(tables.LOAD_OBSERVED, (self._project, text_out(model))).fetchall()
        for pair in found:
            if tuple(map(type, pair)) != (int, int):
                raise malformed(f"observation {model!r}", f"{pair!r} where two integers should be")
        counts = {str(bucket): count for bucket, count in found}
        self._observed[model] = counts
        return counts.copy()

    def count_models(self) -> int:
        """Return of how many models something was observed."""
        found: int = self._execute(tables.COUNT_MODELS, (self._project,)).fetchone()[0]
        return found

    def save_observations(self, model: str, counts: Observations) -> None:
        before = self._observed.get(model)
        if before is None:
            self.load_observations(model)
            before = self._observed[model]
        name = text_out(model)
        for bucket, count in counts.items():
            if before.get(bucket) != count:
                self._execute(tables.SAVE_OBSERVED, (self._project, name, int(bucket), count))
        for bucket in before.keys() - counts.keys():
            self._execute(tables.REMOVE_OBSERVED, (self._project, name, int(bucket)))
        self._observed[model] = dict(counts)

    def _number(self, name: str) -> int | None:
        if name not in self._numbers:
            found = self._execute(tables.LOAD_ACCOUNT, (self._project, name)).fetchone()
            self._numbers[name] = None if found is None else found[0]
        return self._numbers[name]

    def _open(self, name: str, number: int, opened: int, due: Milliseconds) -> OpenHolds:
        loaded, others, bound = self._due_of(name, opened, due)
        if due <= self.now:
            self._due[name] = bound
            if not loaded:
                # The bound was of holds that have ended. The ledger, finding nothing due, would save nothing.
                self._execute(tables.POSTPONE, (bound, number))
        for hold_id, (expires, accounts) in self._held.items():
            if name in accounts and hold_id not in loaded:
                loaded[hold_id] = expires
                others -= 1
        return OpenHolds(loaded, others)

    def _due_of(
        self, name: str, opened: int, due: Milliseconds
    ) -> tuple[dict[str, Milliseconds], int, Milliseconds]:
        """Return an account's open holds that are due, the number of the others, and the first to come."""
        if not self._whole and (not opened or due > self.now):
            return {}, opened, due if opened else NEVER
        found = self._execute(tables.OPEN_OF_ACCOUNT, (self._project, _quoted(name)))
        held = dict(_naming(name, found))
        if self._whole:
            return held, 0, NEVER
        loaded = {hold_id: expires for hold_id, expires in held.items() if expires <= self.now}
        later = (expires for expires in held.values() if expires > self.now)
        return loaded, len(held) - len(loaded), min(later, default=NEVER)

    def _next_due(self, name: str, open_holds: dict[str, Milliseconds]) -> Milliseconds:
        """Return an instant before which no open hold of an account expires."""
        due = min(open_holds.values(), default=NEVER)
        if isinstance(open_holds, OpenHolds) and open_holds.others:
            due = min(due, self._due[name])
        return due


def account_of(
    name: str, values: tuple[Any, ...], spend: Iterable[tuple[Any, Any]]
) -> tuple[AccountRow, str | None, int, Milliseconds]:
    """Make an account's row of its columns; also return its first model, how many holds are open, and due.

    Raises:
        MalformedAccount: a value that this did not write.
    """
    try:
        return _account_of(name, values, spend)
    except sqlite3.DataError as error:
        raise MalformedAccount(name, str(error)) from error


def _account_of(
    name: str, values: tuple[Any, ...], spend: Iterable[tuple[Any, Any]]
) -> tuple[AccountRow, str | None, int, Milliseconds]:
    what = f"of account {name!r}"
    tables.ACCOUNT_TYPES.check(values, what)
    *plain, ephemeral, stored_first, first_spent, opened, due = values
    limit, duration, timezone, anchor, start, end, window, epoch, spent, held, expired, expiries = plain[:12]
    crossed, created, updated = plain[12:]
    first = None if stored_first is None else text_in(stored_first, what)
    models: dict[str, Nanos] = {} if first is None else {first: first_spent}
    for model, cost in spend:
        if type(cost) is not int:
            raise malformed(what, "a model's spend is no integer")
        models[text_in(model, what)] = cost
    row: AccountRow = {
        "limit": limit,
        "duration": duration,
        "timezone": timezone,
        "anchor": anchor,
        "start": start,
        "end": end,
        "window": window,
        "epoch": epoch,
        "spent": spent,
        "held": held,
        "expired": expired,
        "expiries": expiries,
        "models": models,
        "open": {},
        "crossed": [] if crossed == "[]" else parse(crossed, list, what),
        "created": created,
        "updated": updated,
        "ephemeral": bool(ephemeral),
    }
    return row, first, opened, due


def hold_of(hold_id: str, values: tuple[Any, ...]) -> HoldRow:
    """Make a hold's row of its columns.

    Raises:
        sqlite3.DataError: a value that this did not write.
    """
    what = f"of hold {hold_id!r}"
    tables.HOLD_TYPES.check(values, what)
    state, accounts, epochs, amount, on_expiry, cost, created, expires, ended = values[:9]
    user, model, endpoint, outcome, request_id, usage, tags = values[9:]
    return {
        "state": state,
        "accounts": parse(accounts, dict, what),
        "epochs": parse(epochs, dict, what),
        "amount": amount,
        "on_expiry": on_expiry,
        "cost": cost,
        "created": created,
        "expires": expires,
        "ended": ended,
        "user": None if user is None else text_in(user, what),
        "model": text_in(model, what),
        "endpoint": text_in(endpoint, what),
        "outcome": outcome,
        "request_id": None if request_id is None else text_in(request_id, what),
        "usage": parse(usage, dict, what),
        "tags": [] if tags == "[]" else parse(tags, list, what),
    }


def sweep(con: sqlite3.Connection, project: int, horizon: Milliseconds) -> None:
    """Delete some of what ended, or was used last, before the horizon; few enough not to hold up a call."""
    made_before = f"{horizon:012x}"
    old = con.execute(tables.SWEPT_HOLDS, (project, made_before, horizon)).fetchall()
    if old:
        con.executemany(tables.SWEEP_HOLD, [(project, hold_id) for (hold_id,) in old])
        con.execute(tables.SAVE_SWEPT, (old[-1][0], project))
    con.execute(tables.SWEEP_OPEN_ON_NOTHING, (project, made_before, horizon))
    con.execute(tables.SWEEP_ANSWERS, (project, project, made_before))
    rows = TableRows(con, project, horizon)
    for (name,) in con.execute(tables.IDLE_ACCOUNTS, (project, horizon, horizon)).fetchall():
        rows.remove_account(name)


def _quoted(name: str) -> str:
    return f"{dump(name)}:"


def _naming(name: str, found: Any) -> Iterator[tuple[str, Milliseconds]]:
    # SQLite looked for the quoted name as a part of text, which may be the end of a longer one.
    for hold_id, expires, accounts in found:
        if name in parse(accounts, dict, f"of hold {hold_id!r}"):
            yield hold_id, expires
