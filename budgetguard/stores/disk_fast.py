"""The common reserve and the common settle, each as one statement.

Each does what the ledger does where nothing uncommon is involved, and says in its conditions what that
means: no window has ended, no hold of the accounts may have expired, the accounts are those that were known,
the money is there, no threshold is reached. Where it finds otherwise it changes nothing, and the verb
answers None: then the ledger has to run. So what is remembered here may be out of date, and nothing but the
cases that are taken need be right.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple

from budgetguard.core.holds import Granted, Hold, Settled, Settlement
from budgetguard.core.ledger import learn
from budgetguard.core.money import Nanos
from budgetguard.core.windows import Milliseconds
from budgetguard.stores.disk_rows import TableRows
from budgetguard.stores.disk_tables import check_sums, counts, dump, parse, text_in, text_out
from budgetguard.stores.disk_verbs import MOST_ACCOUNTS, RESERVE, SETTLE

_REMEMBERED: Final = 10_000
_MOST_CHARGES: Final = 6

_FIND_HOLD: Final = "SELECT accounts, amount, model FROM open_hold WHERE project = ? AND id = ?"
_FIND_ACCOUNTS = (
    'SELECT name, id, "window", epoch, model, crossed, spent, held, "limit" FROM account '
    "WHERE project = ? AND name IN ({})"
)
_FIND: Final = [_FIND_ACCOUNTS.format(", ".join("?" * count)) for count in range(_MOST_CHARGES + 1)]


class _Known(NamedTuple):
    """What was last seen of an account, as far as it is needed to try."""

    number: int
    window: int
    epoch: int
    model: str | None
    crossed: str
    quoted: str


class _Open(NamedTuple):
    """What is remembered of a hold that was reserved here."""

    accounts: dict[str, int]
    amount: Nanos
    model: str


class FastPath:
    """Reserve and settle for one project, for one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, _Known | None] = {}
        self._open: dict[str, _Open] = {}
        self._connection: sqlite3.Connection | None = None
        self._execute: Callable[..., sqlite3.Cursor] = _nowhere

    def forget(self, hold: Hold) -> None:
        """Forget what is known of a hold's accounts, since it may be out of date."""
        for charge in hold.charges:
            self._known.pop(charge.account, None)
        held = self._open.pop(hold.id, None)
        for name in held.accounts if held is not None else ():
            self._known.pop(name, None)

    def reserve(self, con: sqlite3.Connection, project: int, hold: Hold, now: Milliseconds) -> Granted | None:
        """Grant a hold, or answer None and change nothing."""
        if con is not self._connection:
            self._move(con)
        charges = hold.charges
        if not 0 < len(charges) <= _MOST_CHARGES:
            return None
        known = self._find(project, [charge.account for charge in charges])
        windows: dict[str, int] = {}
        listed: list[str] = []
        present: list[Any] = []
        absent: list[str] = []
        for charge in charges:
            account = known[charge.account]
            if account is None:
                if charge.required or charge.budget is not None:
                    return None
                absent.append(charge.account)
                continue
            number, window, _, _, _, quoted = account
            if charge.pinned and charge.budget is not None:
                present += (number, window, 1, charge.budget.limit)
            else:
                present += (number, window, 0, None)
            windows[charge.account] = window
            listed.append(f"{quoted}:{window}")
        statement = RESERVE.get((len(windows), len(absent)))
        if statement is None or len(windows) + len(absent) < len(charges):  # one was named twice
            return None
        expires = now + hold.ttl
        user = hold.user
        values = (
            project,
            hold.id,
            now,
            hold.amount,
            expires,
            f"{{{','.join(listed)}}}",
            hold.on_expiry,
            hold.created,
            None if user is None else text_out(user),
            text_out(hold.model),
            text_out(hold.endpoint),
            dump(hold.tags) if hold.tags else "[]",
            *present,
            *absent,
        )
        try:
            self._execute(statement, values)
        except sqlite3.IntegrityError:
            return None
        if len(self._open) >= _REMEMBERED:
            del self._open[next(iter(self._open))]
        self._open[hold.id] = _Open(windows, hold.amount, hold.model)
        return Granted(tuple(windows))

    def settle(
        self, con: sqlite3.Connection, project: int, hold: Hold, settlement: Settlement, now: Milliseconds
    ) -> Settled | None:
        """Book what a call cost, or answer None and change nothing but what the caller rolls back."""
        if con is not self._connection:
            self._move(con)
        held = self._open.get(hold.id) or self._find_hold(project, hold.id)
        if held is None:
            return None
        accounts, amount, model = held
        if len(accounts) > MOST_ACCOUNTS:
            return None
        known = self._find(project, accounts)
        each: list[Any] = []
        epochs: list[str] = []
        for name, window in accounts.items():
            account = known[name]
            if account is None:
                return None
            number, _, epoch, first, crossed, quoted = account
            other = first is not None and first != model
            epochs.append(f"{quoted}:{epoch}")
            each += (number, window, epoch, other, crossed, _next_threshold(settlement.thresholds, crossed))
        usage = settlement.usage
        values = (
            project,
            hold.id,
            now,
            amount,
            settlement.cost,
            settlement.state,
            settlement.outcome,
            text_out(settlement.request_id) if settlement.request_id else None,
            counts(usage.units) if usage else "{}",
            text_out(model),
            f"{{{','.join(epochs)}}}",
            *each,
        )
        try:
            if settlement.observed:
                self._execute("BEGIN IMMEDIATE")
            self._execute(SETTLE[len(accounts)], values)
        except sqlite3.IntegrityError:
            return None
        if settlement.observed:
            learn(TableRows(con, project, now), settlement.observed)
            self._execute("COMMIT")
        self._open.pop(hold.id, None)
        return Settled(settlement.cost)

    def _find(self, project: int, names: Collection[str]) -> dict[str, _Known | None]:
        """Return what is known of accounts, None where one does not exist; looked up where nothing is."""
        known = self._known
        missing = [name for name in names if name not in known]
        if missing:
            if len(known) >= _REMEMBERED:
                known.clear()
                missing = list(names)
            known |= dict.fromkeys(missing)
            found = self._execute(_FIND[len(missing)], (project, *missing)).fetchall()
            for name, number, window, epoch, model, crossed, *sums in found:
                check_sums(name, (epoch, *sums))
                first = None if model is None else text_in(model, f"of account {name!r}")
                known[name] = _Known(number, window, epoch, first, crossed, dump(name))
        return known

    def _find_hold(self, project: int, hold_id: str) -> _Open | None:
        found = self._execute(_FIND_HOLD, (project, hold_id)).fetchone()
        if found is None:
            return None
        what = f"of hold {hold_id!r}"
        accounts, amount, model = found
        return _Open(parse(accounts, dict, what), amount, text_in(model, what))

    def _move(self, con: sqlite3.Connection) -> None:
        """Use another connection from now on."""
        self._connection = con
        # One cursor for all: making one costs a tenth of what it then does.
        self._execute = con.cursor().execute


def _nowhere(*_: object) -> sqlite3.Cursor:
    raise AssertionError("a verb before any connection")


def _next_threshold(thresholds: Sequence[int], crossed: str) -> int | None:
    """Return the lowest percentage that an account has not announced yet."""
    if crossed != "[]":
        announced = parse(crossed, list, "of an account")
        thresholds = [percent for percent in thresholds if percent not in announced]
    return min(thresholds) if thresholds else None
