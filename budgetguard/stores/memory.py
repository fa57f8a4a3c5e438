"""`memory://`: balances in this process, gone with it. For tests and for programs of one process."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from heapq import nsmallest
from typing import Final

from budgetguard.core.inside import store_verbs
from budgetguard.core.learning import Observations
from budgetguard.core.rows import (
    AccountRow,
    Export,
    HoldRow,
    Stored,
    StoredAccount,
    StoredHold,
    StoredObservations,
    StoredSwept,
    came_since,
    copy_account,
    copy_hold,
    gone_since,
)
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.errors import ConfigurationError
from budgetguard.stores.embedded import EmbeddedStore
from budgetguard.stores.forking import survive_forks
from budgetguard.stores.nested import nested
from budgetguard.stores.urls import shown_url

_SWEEP_EVERY = 1_024
MOST_RECORDS: Final = 20_000
"""Records of calls that ended, at most about so many: 1.5 kB each, in a process that may run for months."""


@store_verbs
class MemoryStore(EmbeddedStore):
    """Keep one project's rows in dictionaries behind a lock.

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
        super().__init__(project=project, clock=clock, retention=retention)
        self.url = url
        self._accounts: dict[str, AccountRow] = {}
        self._holds: dict[str, HoldRow] = {}
        self._answers: dict[str, str] = {}
        self._observed: dict[str, Observations] = {}
        self._moved_to: str | None = None
        self._swept_to = ""
        self._lock = threading.RLock()
        self._inside = False
        self._committed: _MemoryRows | None = None
        self._since_sweep = 0
        survive_forks(self)

    def observations(self, model: str) -> Observations:
        return dict(self._observed.get(model, {}))

    def projects(self, account: str | None = None) -> Iterator[str]:
        if self._accounts if account is None else account in self._accounts:
            yield self.project

    def retired(self) -> str | None:
        return self._moved_to

    def export(self, since: Milliseconds = 0) -> Export:
        with self._whole():
            # Rows are replaced when they change, so these stay as they are.
            holds = sorted(item for item in self._holds.items() if came_since(item[1], since))
            accounts, observed = sorted(self._accounts.items()), sorted(self._observed.items())
            answers = list(self._answers.items())
            at, swept_to = self._clock(), self._swept_to
        return Export(at, _exported(holds, accounts, observed, answers, swept_to))

    def close(self) -> None:
        """Do nothing: there is nothing to let go of but the balances themselves."""

    @contextmanager
    def _transaction(self, *, whole: bool = False, until: float | None = None) -> Iterator[_MemoryRows]:
        with self._lock:
            self._complete()
            if self._inside:
                raise nested(self.url)
            self._inside = True
            try:
                rows = self._rows()
                yield rows
                self._committed = rows
                self._complete()
                self._since_sweep += 1
                if self._since_sweep >= _SWEEP_EVERY and self._moved_to is None:
                    self._since_sweep = 0
                    self._sweep(self._clock() - self.retention_ms)
            finally:
                self._inside = False

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Lock the rows, with all that is committed in its place."""
        with self._lock:
            self._complete()
            yield

    def _complete(self) -> None:
        # An interrupt may come between any two of these changes. Then whoever comes next makes them again.
        rows = self._committed
        if rows is not None:
            rows.apply()
            self._moved_to = rows.moved_to
            self._swept_to = max(self._swept_to, rows.swept_to)
            self._committed = None

    def _peek(self, account: str) -> AccountRow | None:
        with self._lock:
            self._complete()
            row = self._accounts.get(account)
            return None if row is None else copy_account(row)

    def _scan_accounts(self, prefix: str) -> Iterator[tuple[str, AccountRow]]:
        with self._whole():
            names = sorted(name for name in self._accounts if name.startswith(prefix))
        for name in names:
            row = self._peek(name)
            if row is not None:
                yield name, row

    def _scan_holds(self, since: Milliseconds, until: Milliseconds | None) -> Iterator[tuple[str, HoldRow]]:
        with self._whole():
            ids = sorted(self._holds)
        for hold_id in ids[bisect_left(ids, f"{since:012x}") :]:
            if until is not None and hold_id >= f"{until:012x}":
                return
            with self._whole():
                row = self._rows().load_hold(hold_id)
            if row is not None:
                yield hold_id, row

    def _scan_open(self, account: str | None) -> Iterator[tuple[str, HoldRow]]:
        with self._whole():
            rows = self._accounts.values() if account is None else filter(None, [self._accounts.get(account)])
            ids = sorted({hold_id for row in rows for hold_id in row["open"]})
        for hold_id in ids:
            with self._whole():
                row = self._rows().load_hold(hold_id)
            if row is not None:
                yield hold_id, row

    def _rows(self) -> _MemoryRows:
        return _MemoryRows(
            self._clock(),
            self._accounts,
            self._holds,
            self._answers,
            self._observed,
            self._moved_to,
            self._swept_to,
        )

    def _before_fork(self) -> None:
        """Do nothing: a copy of the balances is as good as the balances."""

    def _after_fork_in_child(self) -> None:
        """Do nothing: see above."""

    def _sweep(self, horizon: Milliseconds) -> None:
        ended = {i: gone for i, row in self._holds.items() if (gone := gone_since(row)) is not None}
        old = [hold_id for hold_id, gone in ended.items() if gone < horizon]
        surplus = len(ended) - len(old) - MOST_RECORDS
        if surplus > 0:
            old = nsmallest(len(old) + surplus, ended, key=lambda hold_id: (ended[hold_id], hold_id))
        made_before = f"{self._clock():012x}"
        for hold_id in old:
            del self._holds[hold_id]
            if self._swept_to < hold_id < made_before:
                self._swept_to = hold_id
        for request_id in [answer for answer, of in self._answers.items() if of not in self._holds]:
            del self._answers[request_id]
        idle = [
            name
            for name, row in self._accounts.items()
            if row["ephemeral"] and not row["open"] and row["updated"] < horizon
        ]
        for name in idle:
            del self._accounts[name]


class _MemoryRows:
    """Rows copied on the way out and kept aside on the way in: a verb that raises has changed nothing."""

    def __init__(
        self,
        now: Milliseconds,
        accounts: dict[str, AccountRow],
        holds: dict[str, HoldRow],
        answers: dict[str, str],
        observed: dict[str, Observations],
        moved_to: str | None,
        swept_to: str,
    ) -> None:
        self.now = now
        self.moved_to = moved_to
        self.swept_to = swept_to
        self._accounts = accounts
        self._holds = holds
        self._answers = answers
        self._observed = observed
        self._new_accounts: dict[str, AccountRow | None] = {}
        self._new_holds: dict[str, HoldRow] = {}
        self._new_answers: dict[str, str] = {}
        self._new_observed: dict[str, Observations] = {}

    def apply(self) -> None:
        """Put what was saved in its place; doing it again changes nothing."""
        for name, row in self._new_accounts.items():
            if row is None:
                self._accounts.pop(name, None)
            else:
                self._accounts[name] = row
        self._holds.update(self._new_holds)
        self._answers.update(self._new_answers)
        self._observed.update(self._new_observed)

    def move(self, moved_to: str | None) -> None:
        self.moved_to = moved_to

    def note_swept(self, hold_id: str) -> None:
        self.swept_to = max(self.swept_to, hold_id)

    def load_account(self, name: str) -> AccountRow | None:
        new = self._new_accounts
        row = new[name] if name in new else self._accounts.get(name)
        return None if row is None else copy_account(row)

    def save_account(self, name: str, row: AccountRow) -> None:
        self._new_accounts[name] = row

    def remove_account(self, name: str) -> None:
        self._new_accounts[name] = None

    def load_hold(self, hold_id: str) -> HoldRow | None:
        row = self._new_holds.get(hold_id) or self._holds.get(hold_id)
        return None if row is None else copy_hold(row)

    def save_hold(self, hold_id: str, row: HoldRow) -> None:
        self._new_holds[hold_id] = row

    def load_answer(self, request_id: str) -> str | None:
        return self._new_answers.get(request_id) or self._answers.get(request_id)

    def save_answer(self, request_id: str, hold_id: str) -> None:
        self._new_answers[request_id] = hold_id

    def load_observations(self, model: str) -> Observations:
        found = self._new_observed.get(model)
        return self._observed.get(model, {}) if found is None else found

    def count_models(self) -> int:
        return len(self._observed.keys() | self._new_observed.keys())

    def save_observations(self, model: str, counts: Observations) -> None:
        self._new_observed[model] = counts


def _exported(
    holds: Iterable[tuple[str, HoldRow]],
    accounts: Iterable[tuple[str, AccountRow]],
    observed: Iterable[tuple[str, Observations]],
    answers: Iterable[tuple[str, str]],
    swept_to: str,
) -> Iterator[Stored]:
    attached: dict[str, list[str]] = {}
    for request_id, hold_id in answers:
        attached.setdefault(hold_id, []).append(request_id)
    for hold_id, hold in holds:
        yield StoredHold(hold_id, copy_hold(hold), tuple(attached.get(hold_id, ())))
    for name, account in accounts:
        yield StoredAccount(name, copy_account(account), len(account["open"]))
    for model, counts in observed:
        yield StoredObservations(model, dict(counts))
    if swept_to:
        yield StoredSwept(swept_to)
