"""The stores that run in this process: the ledger's verbs over rows, each in one transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol, TypeVar

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
from budgetguard.stores.transfer import batches, open_error

_T = TypeVar("_T")


class OpenRows(Rows, Protocol):
    """Rows in an open transaction."""

    @property
    def frozen(self) -> str | None:
        """The note of a frozen project, None if it is not frozen."""

    @property
    def now(self) -> Milliseconds:
        """When the transaction takes place: after it was waited for."""

    def freeze(self, note: str | None) -> None:
        """Store the note of a frozen project; None removes it."""

    def note_swept(self, hold_id: str) -> None:
        """Store that the record of a hold was swept."""


@store_verbs
class EmbeddedStore(ABC):
    """The verbs of a store, run by the ledger over rows that a subclass keeps."""

    url: str
    project: str
    blocking: bool

    def __init__(self, *, project: str, clock: Clock, retention: str) -> None:
        self.project = check_id(project, name="project")
        self._clock = clock
        self.retention_ms = duration_ms(retention)
        self._expiry_hooks: list[Callable[[Expiry], None]] = []

    @abstractmethod
    def _run(self, work: Callable[[OpenRows], _T], *, even_frozen: bool = False) -> _T:
        """Run `work` over rows in a write transaction: it commits, or rolls back on any exception.

        Raises:
            StoreError: the project is frozen, unless `even_frozen`; or the store's own failures.
        """

    @abstractmethod
    def _peek(self, account: str) -> AccountRow | None:
        """Return an account's row as stored, outside any transaction."""

    @abstractmethod
    def _find_answer(self, request_id: str) -> str | None:
        """Return the id of the hold that an answer was attached to last, outside any transaction."""

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
        return self._run(lambda rows: ledger.reserve(rows, hold, rows.now))

    def settle(self, hold: Hold, settlement: Settlement) -> Settled | UnknownAccount:
        return self._run(lambda rows: ledger.settle(rows, hold, settlement, rows.now))

    def attach(self, hold_id: str, request_id: str) -> bool:
        return self._run(lambda rows: ledger.attach(rows, hold_id, request_id))

    def attached(self, request_id: str) -> HoldRecord | None:
        hold_id = self._find_answer(request_id)
        row = None if hold_id is None else self._present_hold(hold_id)
        return None if hold_id is None or row is None else record(hold_id, row)

    def read(self, account: str) -> Balance | None:
        row = self._peek(account)
        return None if row is None else self._present(account, row)

    def set_budget(self, account: str, budget: Budget, *, ephemeral: bool = False) -> Balance:
        return self._told(
            self._run(lambda rows: ledger.set_budget(rows, account, budget, rows.now, ephemeral=ephemeral))
        )

    def reset(self, account: str) -> Balance | None:
        return self._told(self._run(lambda rows: ledger.reset(rows, account, rows.now)))

    def delete(self, account: str) -> bool:
        return self._told(self._run(lambda rows: ledger.delete(rows, account, rows.now)))

    def list(self, kind: str = "") -> Iterator[Balance]:
        for name, row in self._scan_accounts(f"{kind}:" if kind else ""):
            balance = self._present(name, row)
            if balance is not None:
                yield balance

    def holds(self, account: str | None = None) -> Iterator[HoldRecord]:
        for hold_id, row in self._brought_up_to_date(self._scan_open(account)):
            if row["state"] == "held":
                yield record(hold_id, row)

    def calls(self, since: Milliseconds = 0, until: Milliseconds | None = None) -> Iterator[HoldRecord]:
        for hold_id, row in self._brought_up_to_date(self._scan_holds(since, until)):
            yield record(hold_id, row)

    def _brought_up_to_date(self, stored: Iterator[tuple[str, HoldRow]]) -> Iterator[tuple[str, HoldRow]]:
        for hold_id, row in stored:
            current = self._present_hold(hold_id) if is_hold_due(row, self._clock()) else row
            if current is not None:
                yield hold_id, current

    def on_expiry(self, hook: Callable[[Expiry], None]) -> None:
        self._expiry_hooks.append(hook)

    def _present(self, account: str, row: AccountRow) -> Balance | None:
        # Time may have changed the account since it was stored; only then is a write worth its lock.
        if not is_due(row, self._clock()):
            return balance(account, row)

        def work(rows: OpenRows) -> tuple[Balance | None, tuple[Expiry, ...]]:
            if rows.frozen is not None:
                return balance(account, row), ()
            return ledger.read(rows, account, rows.now)

        return self._told(self._run(work, even_frozen=True))

    def _present_hold(self, hold_id: str) -> HoldRow | None:
        def work(rows: OpenRows) -> tuple[HoldRow | None, tuple[Expiry, ...]]:
            if rows.frozen is not None:
                return rows.load_hold(hold_id), ()
            return ledger.present_hold(rows, hold_id, rows.now)

        return self._told(self._run(work, even_frozen=True))

    def _told(self, found: tuple[_T, tuple[Expiry, ...]]) -> _T:
        """Tell the hooks of the expiries that a verb has found, and return what else it has."""
        result, expiries = found
        for expiry in expiries:
            for hook in self._expiry_hooks:
                hook(expiry)
        return result

    def restore(self, rows: Iterable[Stored]) -> None:
        for batch in batches(rows):
            self._run(partial(self._put, batch), even_frozen=True)

    def _put(self, batch: Sequence[Stored], rows: OpenRows) -> None:
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
            elif one.row is None:
                rows.remove_account(one.name)
            else:
                rows.save_account(one.name, one.row)

    def freeze(self, note: str | None) -> None:
        self._run(lambda rows: rows.freeze(note), even_frozen=True)

    @abstractmethod
    def frozen(self) -> str | None:
        """Return the note of a frozen project, None if it is not frozen."""

    @abstractmethod
    def export(self) -> Export:
        """Return all that is stored of the project, as it is stored."""

    @abstractmethod
    def observations(self, model: str) -> Observations:
        """Return what has been observed of a model's answers."""

    @abstractmethod
    def projects(self, account: str | None = None) -> Iterator[str]:
        """Yield the projects of this place that have an account (or just this account), in order."""

    @abstractmethod
    def close(self) -> None:
        """Close files and connections; the next verb opens them again."""
