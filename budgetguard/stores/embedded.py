"""The stores that run in this process: the ledger's verbs over rows, each in one transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, Protocol, TypeVar

from budgetguard.core import ledger
from budgetguard.core.accounts import Balance, Budget, Document, Grant
from budgetguard.core.holds import (
    Booked,
    Entry,
    Expiry,
    Hold,
    HoldRecord,
    Reservation,
    Settlement,
    UnknownAccount,
)
from budgetguard.core.process import store_verbs
from budgetguard.core.rows import (
    NEVER,
    AccountRow,
    Export,
    HoldRow,
    Rows,
    Stored,
    StoredAccount,
    StoredEntry,
    StoredHold,
    StoredObservations,
    StoredScopes,
    StoredSwept,
    balance,
    is_hold_due,
    record,
)
from budgetguard.core.usage import Observations
from budgetguard.core.windows import Milliseconds
from budgetguard.stores.base import BaseStore
from budgetguard.stores.transfer import batches, open_error

_T = TypeVar("_T")


PAGE: Final = 500
"""Rows that a page has at least, unless there are no more."""


class StoredRows(Rows, Protocol):
    """The rows of one project in an open transaction.

    Pages are in order of names or ids, from `start` to before `end` (None: no end). They have at least `PAGE`
    rows, unless there are no more.
    """

    @property
    def now(self) -> Milliseconds:
        """When the transaction takes place: after it was waited for."""

    @property
    def frozen(self) -> str | None:
        """The note of a frozen project, None if it is not frozen."""

    def freeze(self, note: str | None) -> None:
        """Store the note of a frozen project; None removes it."""

    def note_swept(self, hold_id: str) -> None:
        """Store that the record of a hold was swept."""

    def page_of_accounts(self, start: str, end: str | None) -> Sequence[tuple[str, AccountRow | Exception]]:
        """Return a page of accounts by name; of one that cannot be read, why not."""

    def page_of_holds(self, start: str, end: str | None) -> Sequence[tuple[str, HoldRow]]:
        """Return a page of holds by id, open or ended."""

    def page_of_open(self, start: str, account: str | None) -> Sequence[tuple[str, HoldRow]]:
        """Return a page of the holds by id that are stored as open, at least those on an account (or any)."""

    def answers_between(self, first: str, last: str) -> Mapping[str, Sequence[str]]:
        """Return the answers that were attached to holds, by hold, from the first id to the last."""

    def list_observations(self) -> Sequence[tuple[str, Observations]]:
        """Return what has been observed, by model, in order."""

    def page_of_entries(self, start: str) -> Sequence[tuple[str, Entry]]:
        """Return a page of the audit trail by the entries' ids."""

    def projects(self, account: str | None) -> Sequence[str]:
        """Return the projects of this place that have an account (or just this account), in order."""


@store_verbs
class EmbeddedStore(BaseStore, ABC):
    """The verbs of a store, run by the ledger over rows that a subclass keeps."""

    blocking: bool

    @abstractmethod
    def _run(self, work: Callable[[StoredRows], _T], *, even_frozen: bool = False) -> _T:
        """Run `work` over rows in a write transaction: it commits, or rolls back on any exception.

        Raises:
            StoreError: the project is frozen, unless `even_frozen`; or the store's own failures.
        """

    @abstractmethod
    def _reading(self) -> AbstractContextManager[StoredRows]:
        """Show rows as they are stored, in one state, without waiting for a transaction.

        What the block raises leaves as StoreError, if rows that cannot be read may be the reason.
        """

    @abstractmethod
    def _snapshot(self) -> AbstractContextManager[StoredRows]:
        """Show rows as `_reading` does, however long that takes, while others write."""

    def reserve(self, hold: Hold) -> Reservation:
        return self._run(lambda rows: ledger.reserve(rows, hold, rows.now))

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        return self._run(lambda rows: ledger.settle(rows, hold, settlement, rows.now))

    def attach(self, hold_id: str, request_id: str) -> bool:
        return self._run(lambda rows: ledger.attach(rows, hold_id, request_id))

    def attached(self, request_id: str) -> HoldRecord | None:
        hold_id = self._read(lambda rows: rows.load_answer(request_id))
        row = None if hold_id is None else self._present_hold(hold_id)
        return None if hold_id is None or row is None else record(hold_id, row)

    def read(self, account: str) -> Balance | None:
        row = self._read(lambda rows: rows.load_account(account))
        return None if row is None else self._present(account, row)

    def mark(self, account: str, mark: int) -> bool:
        return self._announced(self._run(lambda rows: ledger.mark(rows, account, mark, rows.now)))

    def scopes(self) -> Document:
        return self._read(lambda rows: rows.scopes)

    def set_budget(
        self, account: str, budget: Budget, *, ephemeral: bool = False, entry: Entry | None = None
    ) -> Balance:
        def work(rows: StoredRows) -> tuple[Balance, tuple[Expiry, ...]]:
            return ledger.set_budget(rows, account, budget, rows.now, ephemeral=ephemeral, entry=entry)

        return self._announced(self._run(work))

    def grant(self, account: str, grant: Grant, *, entry: Entry | None = None) -> Balance | None:
        return self._announced(
            self._run(lambda rows: ledger.grant(rows, account, grant, rows.now, entry=entry))
        )

    def set_labels(self, account: str, labels: str, *, entry: Entry | None = None) -> Balance | None:
        return self._announced(
            self._run(lambda rows: ledger.set_labels(rows, account, labels, rows.now, entry=entry))
        )

    def save_scopes(self, document: Document, seen: int, *, entry: Entry | None = None) -> bool:
        return self._run(lambda rows: ledger.save_scopes(rows, document, seen, entry))

    def reset(self, account: str, *, entry: Entry | None = None) -> Balance | None:
        return self._announced(self._run(lambda rows: ledger.reset(rows, account, rows.now, entry=entry)))

    def delete(self, account: str, *, entry: Entry | None = None) -> bool:
        return self._announced(self._run(lambda rows: ledger.delete(rows, account, rows.now, entry=entry)))

    def trail(self, since: Milliseconds = 0) -> Iterator[Entry]:
        for _, entry in self._scan(lambda rows, after: rows.page_of_entries(after), f"{since:012x}"):
            yield entry

    def list(self, kind: str = "") -> Iterator[Balance]:
        start, end = (f"{kind}:", f"{kind};") if kind else ("", None)
        failed: list[Exception] = []
        for name, row in self._scan(lambda rows, after: rows.page_of_accounts(after, end), start):
            if isinstance(row, Exception):
                failed.append(row)
            elif (balance := self._present(name, row)) is not None:
                yield balance
        # The others are listed all the same; but a list that lacks some must not pass for a whole one.
        if failed:
            with self._reading():
                raise failed[0]

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        stored = self._scan(lambda rows, after: rows.page_of_open(after, account), "")
        for hold_id, row in self._brought_up_to_date(stored):
            if row["state"] == "held" and (account is None or account in row["accounts"]):
                yield record(hold_id, row)

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        end = None if until is None else f"{until:012x}"
        stored = self._scan(lambda rows, after: rows.page_of_holds(after, end), f"{since:012x}")
        for hold_id, row in self._brought_up_to_date(stored):
            yield record(hold_id, row)

    def _brought_up_to_date(self, stored: Iterator[tuple[str, HoldRow]]) -> Iterator[tuple[str, HoldRow]]:
        for hold_id, row in stored:
            current = self._present_hold(hold_id) if is_hold_due(row, self._clock()) else row
            if current is not None:
                yield hold_id, current

    def _present(self, account: str, row: AccountRow) -> Balance | None:
        # Time may have changed the account since it was stored; only then is a write worth its lock.
        if not ledger.is_due(row, self._clock()):
            return balance(account, row)

        def work(rows: StoredRows) -> tuple[Balance | None, tuple[Expiry, ...]]:
            if rows.frozen is not None:
                return balance(account, row), ()
            return ledger.read(rows, account, rows.now)

        return self._announced(self._run(work, even_frozen=True))

    def _present_hold(self, hold_id: str) -> HoldRow | None:
        def work(rows: StoredRows) -> tuple[HoldRow | None, tuple[Expiry, ...]]:
            if rows.frozen is not None:
                return rows.load_hold(hold_id), ()
            return ledger.present_hold(rows, hold_id, rows.now)

        return self._announced(self._run(work, even_frozen=True))

    def _announced(self, found: tuple[_T, tuple[Expiry, ...]]) -> _T:
        """Call the hooks for the expiries that a verb has found, and return its result."""
        result, expiries = found
        self._announce(expiries)
        return result

    def restore(self, rows: Iterable[Stored]) -> None:
        for batch in batches(rows):
            self._run(partial(self._put, batch), even_frozen=True)

    def _put(self, batch: Sequence[Stored], rows: StoredRows) -> None:
        if rows.frozen is None:
            raise open_error(self)
        for one in batch:
            if isinstance(one, StoredHold):
                rows.load_hold(one.id)  # so that rows know whether, and where, there is one
                rows.save_hold(one.id, one.row)
                for request_id in one.answers:
                    rows.save_answer(request_id, one.id)
            elif isinstance(one, StoredObservations):
                rows.save_observations(one.model, one.counts)
            elif isinstance(one, StoredSwept):
                rows.note_swept(one.id)
            elif isinstance(one, StoredScopes):
                rows.save_scopes(one.document)
            elif isinstance(one, StoredEntry):
                rows.add_entry(one.entry)
            elif one.row is None:
                rows.remove_account(one.name)
            else:
                rows.save_account(one.name, one.row)

    def freeze(self, note: str | None) -> None:
        self._run(lambda rows: rows.freeze(note), even_frozen=True)

    def frozen(self) -> str | None:
        return self._read(lambda rows: rows.frozen)

    def observations(self, model: str) -> Observations:
        return dict(self._read(lambda rows: rows.load_observations(model)))

    def projects(self, account: str | None = None) -> Iterator[str]:
        yield from self._read(lambda rows: rows.projects(account))

    def export(self) -> Export:
        return Export(self._clock(), self._exported())

    def _exported(self) -> Iterator[Stored]:
        with self._snapshot() as rows:
            yield from exported(rows)

    def _read(self, work: Callable[[StoredRows], _T]) -> _T:
        with self._reading() as rows:
            return work(rows)

    def _scan(
        self, page: Callable[[StoredRows, str], Sequence[tuple[str, _T]]], start: str
    ) -> Iterator[tuple[str, _T]]:
        """Yield the rows of all pages; between two of them others may write."""
        return paged(lambda after: self._read(lambda rows: page(rows, after)), start)

    @abstractmethod
    def close(self) -> None:
        """Close files and connections; the next verb opens them again."""


def copy_account(row: AccountRow) -> AccountRow:
    """Return a copy that shares nothing that a verb changes."""
    copy = row.copy()
    copy["models"] = row["models"].copy()
    copy["crossed"] = row["crossed"].copy()
    return copy


def copy_hold(row: HoldRow) -> HoldRow:
    """Return a copy that shares nothing that a verb changes."""
    copy = row.copy()
    copy["accounts"] = row["accounts"].copy()
    copy["epochs"] = row["epochs"].copy()
    return copy


def paged(page: Callable[[str], Sequence[tuple[str, _T]]], start: str = "") -> Iterator[tuple[str, _T]]:
    """Yield the rows of all pages, from `start` on."""
    while True:
        found = page(start)
        yield from found
        if len(found) < PAGE:
            return
        start = following(found[-1][0])


def following(name: str) -> str:
    """Return the text that comes next after a name or id."""
    return f"{name}\0"


def exported(rows: StoredRows) -> Iterator[Stored]:
    """Yield all that is stored: see `base.Transfer.export`."""
    start = ""
    while page := rows.page_of_holds(start, None):
        answers = rows.answers_between(page[0][0], page[-1][0])
        for hold_id, hold in page:
            yield StoredHold(hold_id, copy_hold(hold), tuple(answers.get(hold_id, ())))
        start = following(page[-1][0])
    # All at once, since to look for those of each account would be to read all of them for each. They are
    # the calls that are under way.
    listed: defaultdict[str, dict[str, Milliseconds]] = defaultdict(dict)
    for hold_id, hold in paged(lambda after: rows.page_of_open(after, None)):
        for name in hold["accounts"]:
            listed[name][hold_id] = hold["expires"]
    for name, row in paged(lambda after: rows.page_of_accounts(after, None)):
        if isinstance(row, Exception):
            raise row
        due = min(listed[name].values(), default=NEVER)
        yield StoredAccount(name, {**copy_account(row), "due": due}, listed[name])
    for model, counts in rows.list_observations():
        yield StoredObservations(model, dict(counts))
    if rows.swept_to:
        yield StoredSwept(rows.swept_to)
    if rows.scopes.revision:
        yield StoredScopes(rows.scopes)
    for _, entry in paged(rows.page_of_entries):
        yield StoredEntry(entry)
