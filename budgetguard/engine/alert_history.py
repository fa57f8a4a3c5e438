"""What was told of lately, by any process on a store: so that the quiet period is one for all of them.

It is kept in a project of the store's own, as records of holds of nothing, which every store has and
forgets in time. The embedded memory store has one process only, and a service keeps it itself.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from budgetguard.alerts.alert import Alert, alert_from
from budgetguard.core.accounts import Budget
from budgetguard.core.holds import VOID, Charge, new_hold
from budgetguard.core.windows import Clock, Milliseconds
from budgetguard.stores.base import OWN_PROJECTS, Store, open_store

ALERTS_PROJECT: Final = f"{OWN_PROJECTS}alerts"
"""The project in which a store keeps what was told. No key of a service is of it."""

_ACCOUNT: Final = "outbox:alerts"
_RETENTION: Final = "32d"
_TTL: Final[Milliseconds] = 3_600_000
_PRIVATE: Final = ("memory:", "http:", "https:")


class AlertHistory:
    """What was told on one store.

    Args:
        url: of the store.
        clock: the time.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._store: Store | None = None

    def told_since(self, at: Milliseconds) -> Iterator[tuple[Milliseconds, Alert]]:
        """Yield when what was told, oldest first.

        Raises:
            StoreError: the store failed.
        """
        for record in self._opened().calls(at):
            yield record.created_ms, alert_from(json.loads(record.tags[0]))

    def add(self, alert: Alert) -> None:
        """Take note of what is told now.

        Raises:
            StoreError: the store failed.
        """
        values: dict[str, Any] = asdict(alert)
        charge = Charge(_ACCOUNT, budget=Budget(None))
        hold = new_hold(self._clock(), (charge,), ttl=_TTL, endpoint="alert", tags=(json.dumps(values),))
        store = self._opened()
        store.reserve(hold)
        store.settle(hold, VOID)

    def close(self) -> None:
        """Let go of the store's files and connections; the next use opens them again."""
        if self._store is not None:
            self._store.close()

    def _opened(self) -> Store:
        if self._store is None:
            self._store = open_store(
                self._url, project=ALERTS_PROJECT, clock=self._clock, retention=_RETENTION
            )
        return self._store


_made: Final[weakref.WeakValueDictionary[tuple[str, Clock], AlertHistory]] = weakref.WeakValueDictionary()
_lock = threading.RLock()


def history_of(url: str, clock: Clock) -> AlertHistory | None:
    """Return the history of a store; None where it is of one process only, or not to be had."""
    if url.startswith(_PRIVATE) or "://" not in url:
        return None
    with _lock:
        found = _made.get((url, clock))
        if found is None:
            found = _made[url, clock] = AlertHistory(url, clock)
        return found
