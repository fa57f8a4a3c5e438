"""Forecasts from a store's records, read once for however many accounts; and which of them are to be told.

Records are read from the newest to the oldest, slice by slice, as far as an account's forecast looks back and
up to `MOST_RECORDS`: of a busy project the last days say enough, and nobody waits for three months of calls.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from budgetguard.core.accounts import Balance
from budgetguard.core.forecast import Forecast, History, forecast
from budgetguard.core.holds import FORECAST_TOLD, Crossing
from budgetguard.core.windows import Milliseconds
from budgetguard.errors import StoreError
from budgetguard.stores.base import Store

if TYPE_CHECKING:
    from budgetguard.engine.engine import Engine

logger = logging.getLogger("budgetguard")

MOST_RECORDS: Final = 50_000
"""Records after which no older slice is read."""

_SLICES: Final = 32


def histories(store: Store, balances: Iterable[Balance], now: Milliseconds) -> dict[str, History]:
    """Return what accounts have spent, by their names, from one pass over the records.

    Raises:
        StoreError: the records cannot be read.
    """
    found = {one.account: History(one, now) for one in balances}
    oldest = min((one.since for one in found.values()), default=now)
    read, until, span = 0, now + 1, (now - oldest) // _SLICES + 1
    while until > oldest and read < MOST_RECORDS:
        since = max(oldest, until - span)
        for record in store.calls(since, until):
            read += 1
            for account in record.accounts:
                if (history := found.get(account)) is not None:
                    history.add(record)
        until, span = since, 2 * span
    for history in found.values():
        # What was made before and ended since is no whole picture of that time.
        history.begin(until)
    return found


class Records:
    """The records of several accounts, read when a forecast is first asked for.

    Args:
        store: whose records; called when they are read.
        accounts: the balances of the accounts that may be asked for; called then, too.
        now: as of when.
    """

    def __init__(
        self, store: Callable[[], Store], accounts: Callable[[Store], Iterable[Balance]], now: Milliseconds
    ) -> None:
        self.now = now
        self._store = store
        self._accounts = accounts
        self._histories: Mapping[str, History] | None = None
        self._lock = threading.Lock()

    def history(self, balance: Balance) -> History:
        """Return what an account has spent.

        Raises:
            StoreError: the records cannot be read.
        """
        with self._lock:
            if self._histories is None:
                store = self._store()
                self._histories = histories(store, self._accounts(store), self.now)
        return self._histories.get(balance.account) or History(balance, self.now)


class BalanceForecaster:
    """Makes the forecast of one balance from records, once.

    Args:
        records: those of the account, with others' perhaps.
    """

    __slots__ = ("_records", "made")

    def __init__(self, records: Records) -> None:
        self._records = records
        self.made: Forecast | None = None

    def make(self, balance: Balance) -> Forecast:
        """Return the balance's forecast.

        Raises:
            StoreError: the records cannot be read.
        """
        if self.made is None:
            self.made = forecast(balance, self._records.history(balance), self._records.now)
        return self.made


def foreseen(store: Callable[[], Store], balance: Balance, now: Milliseconds) -> Balance:
    """Return a balance whose forecast is made from the store's records when it is asked for."""
    return balance.forecast_by(BalanceForecaster(Records(store, lambda _: (balance,), now)))


def all_foreseen(
    store: Callable[[], Store], kind: str, balances: Iterable[Balance], now: Milliseconds
) -> Iterator[Balance]:
    """Yield balances of a kind whose forecasts are all made from one pass over the store's records."""
    records = Records(store, lambda opened: opened.list(kind), now)
    for balance in balances:
        yield balance.forecast_by(BalanceForecaster(records))


def exceeding(store: Store, balances: Iterable[Balance], now: Milliseconds) -> list[tuple[Balance, Forecast]]:
    """Return those of some balances that are on course to spend more than their limit, and have not yet.

    Raises:
        StoreError: the records cannot be read.
    """
    may = [
        one
        for one in balances
        if one.resets_ms is not None
        and not one.rolling
        and one.limit_nanos
        and one.spent_nanos < one.limit_nanos
    ]
    if not may:
        return []
    past = histories(store, may, now)
    made = [(one, forecast(one, past[one.account], now)) for one in may]
    return [(balance, foreseen) for balance, foreseen in made if foreseen.exceeds]


def newly_exceeding(
    engine: Engine, crossings: Iterable[Crossing], now: Milliseconds
) -> list[tuple[Balance, Forecast]]:
    """Return what is to be told of accounts that have crossed a threshold now: once a window, by one process.

    Which process tells it the store decides. A store that fails is logged, and nothing is told.
    """
    latest = {one.account: one.balance for one in crossings}
    try:
        found = exceeding(engine.store, latest.values(), now)
        return [
            (balance, made) for balance, made in found if engine.store.mark(balance.account, FORECAST_TOLD)
        ]
    except StoreError as error:
        logger.warning("budgetguard: whether a budget will be exceeded could not be foreseen: %s", error)
        return []
