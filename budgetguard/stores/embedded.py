"""What the embedded stores share: the ledger's verbs over rows, each in one transaction."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from budgetguard.core import ledger
from budgetguard.core.accounts import Balance, Budget, check_id
from budgetguard.core.holds import (
    Expiry,
    Hold,
    HoldRecord,
    Reservation,
    Settled,
    Settlement,
    UnknownAccount,
)
from budgetguard.core.inside import store_verbs
from budgetguard.core.learning import Observations
from budgetguard.core.rows import (
    AccountRow,
    Export,
    HoldRow,
    Rows,
    Stored,
    StoredHold,
    StoredObservations,
    StoredSwept,
    balance,
    is_due,
    is_hold_due,
    record,
)
from budgetguard.core.windows import Clock, Milliseconds, duration_ms
from budgetguard.stores.movable import COPY, batches, moved, note_of


class TimedRows(Rows, Protocol):
    """Rows in an open transaction."""

    @property
    def now(self) -> Milliseconds:
        """When the transaction takes place: after it was waited for."""

    @property
    def moved_to(self) -> str | None:
        """Where the project has moved, None if it has not."""

    def move(self, moved_to: str | None) -> None:
        """Note where the project has moved."""

    def note_swept(self, hold_id: str) -> None:
        """Note that the record of a hold was swept."""


@store_verbs
class EmbeddedStore(ABC):
    """Run the ledger over rows that a subclass keeps."""

    url: str
    project: str
    blocking: bool

    def __init__(self, *, project: str, clock: Clock, retention: str) -> None:
        self.project = check_id(project, name="project")
        self._clock = clock
        self.retention_ms = duration_ms(retention)
        self._expiry_hooks: list[Callable[[Expiry], None]] = []

    @abstractmethod
    def _transaction(
        self, *, whole: bool = False, until: float | None = None
    ) -> AbstractContextManager[TimedRows]:
        """Open a write transaction: it commits on leaving, and rolls back on any exception.

        It is waited for until a time (time.monotonic()), or for as long as the store waits.

        Accounts may be loaded with those of their open holds alone that are due, or that are loaded
        before; with all of them if `whole`. In either case `len` counts all.
        """

    @abstractmethod
    def _peek(self, account: str) -> AccountRow | None:
        """Return an account's row as stored, outside any transaction."""

    @abstractmethod
    def _scan_accounts(self, prefix: str) -> Iterator[tuple[str, AccountRow]]:
        """Yield accounts whose names begin with `prefix`, in order, without holding a lock between pages."""

    @abstractmethod
    def _scan_holds(self, since: Milliseconds, until: Milliseconds | None) -> Iterator[tuple[str, HoldRow]]:
        """Yield holds made in a span, oldest first, without holding a lock between pages."""

    @abstractmethod
    def _scan_open(self, account: str | None) -> Iterator[tuple[str, HoldRow]]:
        """Yield holds stored as open on an account, or on any, without holding a lock between pages."""

    def reserve(self, hold: Hold) -> Reservation:
        with self._writing() as rows:
            return ledger.reserve(rows, hold, rows.now)

    def settle(self, hold: Hold, settlement: Settlement) -> Settled | UnknownAccount:
        with self._writing() as rows:
            return ledger.settle(rows, hold, settlement, rows.now)

    def attach(self, hold_id: str, request_id: str) -> bool:
        with self._writing() as rows:
            return ledger.attach(rows, hold_id, request_id)

    def attached(self, request_id: str) -> HoldRecord | None:
        with self._transaction() as rows:
            hold_id = rows.load_answer(request_id)
            row, expiries = (None, ()) if hold_id is None else _present_hold(rows, hold_id)
        self._announce(expiries)
        return None if row is None or hold_id is None else record(hold_id, row)

    def read(self, account: str) -> Balance | None:
        row = self._peek(account)
        return None if row is None else self._present(account, row)

    def set_budget(self, account: str, budget: Budget, *, ephemeral: bool = False) -> Balance:
        with self._writing() as rows:
            found, expiries = ledger.set_budget(rows, account, budget, rows.now, ephemeral=ephemeral)
        self._announce(expiries)
        return found

    def delete(self, account: str) -> bool:
        with self._writing(whole=True) as rows:
            existed, expiries = ledger.delete(rows, account, rows.now)
        self._announce(expiries)
        return existed

    def list(self, kind: str = "") -> Iterator[Balance]:
        for name, row in self._scan_accounts(f"{kind}:" if kind else ""):
            balance = self._present(name, row)
            if balance is not None:
                yield balance

    def reset(self, account: str) -> Balance | None:
        with self._writing() as rows:
            found, expiries = ledger.reset(rows, account, rows.now)
        self._announce(expiries)
        return found

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        for hold_id, row in self._brought_up_to_date(self._scan_open(account)):
            if row["state"] == "held":
                yield record(hold_id, row)

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        for hold_id, row in self._brought_up_to_date(self._scan_holds(since, until)):
            yield record(hold_id, row)

    def _brought_up_to_date(self, stored: Iterator[tuple[str, HoldRow]]) -> Iterator[tuple[str, HoldRow]]:
        for hold_id, row in stored:
            if not is_hold_due(row, self._clock()):
                yield hold_id, row
                continue
            with self._transaction() as rows:
                current, expiries = _present_hold(rows, hold_id)
            self._announce(expiries)
            if current is not None:
                yield hold_id, current

    def on_expiry(self, hook: Callable[[Expiry], None]) -> None:
        self._expiry_hooks.append(hook)

    def _present(self, account: str, row: AccountRow) -> Balance | None:
        # Time may have changed the account since it was stored; only then is a write worth its lock.
        if not is_due(row, self._clock()):
            return balance(account, row)
        with self._transaction() as rows:
            if rows.moved_to is not None:
                return balance(account, row)
            found, expiries = ledger.read(rows, account, rows.now)
        self._announce(expiries)
        return found

    def restore(self, rows: Iterable[Stored]) -> None:
        for batch in batches(rows):
            with self._transaction(whole=True) as here:
                if here.moved_to is not None and not here.moved_to.startswith(COPY):
                    raise moved(self, here.moved_to)
                for one in batch:
                    _put(here, one)

    def retire(self, moved_to: str | None) -> None:
        with self._transaction() as rows:
            rows.move(None if moved_to is None else note_of(moved_to))

    @contextmanager
    def _writing(self, *, whole: bool = False, until: float | None = None) -> Iterator[TimedRows]:
        """Open a transaction for a verb that writes: see `_transaction`.

        Raises:
            StoreError: the project has moved.
        """
        with self._transaction(whole=whole, until=until) as rows:
            if rows.moved_to is not None:
                raise moved(self, rows.moved_to)
            yield rows

    def _announce(self, expiries: builtins.list[Expiry] | tuple[Expiry, ...]) -> None:
        for expiry in expiries:
            for hook in self._expiry_hooks:
                hook(expiry)

    @abstractmethod
    def retired(self) -> str | None:
        """Return where the project has moved, None if it has not."""

    @abstractmethod
    def export(self, since: Milliseconds = 0) -> Export:
        """Return all that is stored of the project, as it is stored."""

    @abstractmethod
    def observations(self, model: str) -> Observations:
        """Return what has been observed of a model's answers."""

    @abstractmethod
    def projects(self, account: str | None = None) -> Iterator[str]:
        """Yield the projects of this place that have an account (or just this account), in order."""

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections; the next verb opens them again."""


def _present_hold(rows: TimedRows, hold_id: str) -> tuple[HoldRow | None, tuple[Expiry, ...]]:
    if rows.moved_to is not None:
        return rows.load_hold(hold_id), ()
    return ledger.present_hold(rows, hold_id, rows.now)


def _put(rows: TimedRows, one: Stored) -> None:
    if isinstance(one, StoredHold):
        rows.load_hold(one.id)  # so that rows know whether, and where, there is one
        rows.save_hold(one.id, one.row)
        for request_id in one.answers:
            rows.save_answer(request_id, one.id)
    elif isinstance(one, StoredObservations):
        rows.save_observations(one.model, one.counts)
    elif isinstance(one, StoredSwept):
        rows.note_swept(one.id)
    elif one.row is None:
        rows.remove_account(one.name)
    else:
        rows.load_account(one.name)
        rows.save_account(one.name, one.row)
