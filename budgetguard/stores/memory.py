"""`memory://`: balances in this process, gone with it. For tests and for programs of one process."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from budgetguard.errors import ConfigurationError
from budgetguard.learning import Observations
from budgetguard.rows import (
    AccountRow,
    Export,
    HoldRow,
    Stored,
    StoredAccount,
    StoredHold,
    StoredObservations,
    came_since,
    copy_account,
    copy_hold,
    gone_since,
)
from budgetguard.stores.embedded import EmbeddedStore
from budgetguard.stores.forking import survive_forks
from budgetguard.windows import Clock, Milliseconds

_SWEEP_EVERY = 1_024


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
                f"store {url!r}: memory:// takes no name; each opening is a store of its own"
            )
        super().__init__(project=project, clock=clock, retention=retention)
        self.url = url
        self._accounts: dict[str, AccountRow] = {}
        self._holds: dict[str, HoldRow] = {}
        self._answers: dict[str, str] = {}
        self._observed: dict[str, Observations] = {}
        self._moved_to: str | None = None
        self._lock = threading.Lock()
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
        with self._lock:
            # Rows are replaced when they change, so these stay as they are.
            holds = sorted(item for item in self._holds.items() if came_since(item[1], since))
            accounts, observed = sorted(self._accounts.items()), sorted(self._observed.items())
            answers = list(self._answers.items())
            at = self._clock()
        return Export(at, _exported(holds, accounts, observed, answers))

    def close(self) -> None:
        """Do nothing: there is nothing to let go of but the balances themselves."""

    @contextmanager
    def _transaction(self, *, whole: bool = False) -> Iterator[_MemoryRows]:
        with self._lock:
            rows = self._rows()
            yield rows
            self._moved_to = rows.moved_to
            self._since_sweep += 1
            if self._since_sweep >= _SWEEP_EVERY and self._moved_to is None:
                self._since_sweep = 0
                self._sweep(self._clock() - self.retention_ms)

    def _peek(self, account: str) -> AccountRow | None:
        with self._lock:
            return self._rows().load_account(account)

    def _scan_accounts(self, prefix: str) -> Iterator[tuple[str, AccountRow]]:
        with self._lock:
            names = sorted(name for name in self._accounts if name.startswith(prefix))
        for name in names:
            row = self._peek(name)
            if row is not None:
                yield name, row

    def _scan_holds(self, since: Milliseconds, until: Milliseconds | None) -> Iterator[tuple[str, HoldRow]]:
        with self._lock:
            ids = sorted(self._holds)
        for hold_id in ids[bisect_left(ids, f"{since:012x}") :]:
            if until is not None and hold_id >= f"{until:012x}":
                return
            with self._lock:
                row = self._rows().load_hold(hold_id)
            if row is not None:
                yield hold_id, row

    def _scan_open(self, account: str | None) -> Iterator[tuple[str, HoldRow]]:
        with self._lock:
            rows = self._accounts.values() if account is None else filter(None, [self._accounts.get(account)])
            ids = sorted({hold_id for row in rows for hold_id in row["open"]})
        for hold_id in ids:
            with self._lock:
                row = self._rows().load_hold(hold_id)
            if row is not None:
                yield hold_id, row

    def _rows(self) -> _MemoryRows:
        return _MemoryRows(
            self._clock(), self._accounts, self._holds, self._answers, self._observed, self._moved_to
        )

    def _before_fork(self) -> None:
        """Do nothing: a copy of the balances is as good as the balances."""

    def _after_fork_in_child(self) -> None:
        """Do nothing: see above."""

    def _sweep(self, horizon: Milliseconds) -> None:
        old = [
            i for i, row in self._holds.items() if (gone := gone_since(row)) is not None and gone < horizon
        ]
        for hold_id in old:
            del self._holds[hold_id]
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
    """Rows copied on the way in and out, so that a verb that raises has changed nothing."""

    def __init__(
        self,
        now: Milliseconds,
        accounts: dict[str, AccountRow],
        holds: dict[str, HoldRow],
        answers: dict[str, str],
        observed: dict[str, Observations],
        moved_to: str | None,
    ) -> None:
        self.now = now
        self.moved_to = moved_to
        self._accounts = accounts
        self._holds = holds
        self._answers = answers
        self._observed = observed

    def move(self, moved_to: str | None) -> None:
        self.moved_to = moved_to

    def load_account(self, name: str) -> AccountRow | None:
        row = self._accounts.get(name)
        return None if row is None else copy_account(row)

    def save_account(self, name: str, row: AccountRow) -> None:
        self._accounts[name] = row

    def remove_account(self, name: str) -> None:
        self._accounts.pop(name, None)

    def load_hold(self, hold_id: str) -> HoldRow | None:
        row = self._holds.get(hold_id)
        return None if row is None else copy_hold(row)

    def save_hold(self, hold_id: str, row: HoldRow) -> None:
        self._holds[hold_id] = row

    def load_answer(self, request_id: str) -> str | None:
        return self._answers.get(request_id)

    def save_answer(self, request_id: str, hold_id: str) -> None:
        self._answers[request_id] = hold_id

    def load_observations(self, model: str) -> Observations:
        return self._observed.get(model, {})

    def save_observations(self, model: str, counts: Observations) -> None:
        self._observed[model] = counts


def _exported(
    holds: Iterable[tuple[str, HoldRow]],
    accounts: Iterable[tuple[str, AccountRow]],
    observed: Iterable[tuple[str, Observations]],
    answers: Iterable[tuple[str, str]],
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
