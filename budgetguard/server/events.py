"""Events for webhooks, and the outbox in which they wait for delivery: in the service's store.

The outbox is one account of a project of the service's own. Each event is a hold of nothing on it, whose tag
is the event's JSON: reserved when it happens, voided when the receiver has taken it, expired if none does
within `KEPT`. So every store keeps events, they outlive any server, every server sees them, and an event that
is written twice under one id is there once.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from budgetguard.core.accounts import Balance, Budget
from budgetguard.core.holds import (
    VOID,
    Charge,
    Crossing,
    Expiry,
    Hold,
    Reservation,
    derived_id,
    new_hold,
    new_hold_id,
)
from budgetguard.core.windows import Clock, Milliseconds, to_datetime
from budgetguard.engine.forecasting import exceeding
from budgetguard.errors import StoreError
from budgetguard.stores.base import Store
from budgetguard.stores.wire import to_json

KEPT: Final[Milliseconds] = 3 * 86_400_000
"""Milliseconds for which an undelivered event is kept."""

REMEMBERED: Final = "400d"
"""How long delivered events are remembered: longer than any window but those of years."""

CROSSED: Final = "threshold.crossed"
EXPIRED: Final = "hold.expired"
STARTED: Final = "window.started"
FORECAST: Final = "forecast.exceeded"

_OUTBOX: Final = "outbox:events"
_log = logging.getLogger("budgetguard.server")


@dataclass(frozen=True, slots=True)
class WaitingEvent:
    """One event that is to be delivered: its id, and its JSON."""

    id: str
    body: bytes


class Events:
    """The outbox: events are recorded as they happen and kept until they are delivered.

    Args:
        store: opened for `EVENTS_PROJECT`, with the retention `REMEMBERED`.
        thresholds: percentages of a limit that make an event when a window first reaches them.
        clock: the time.
    """

    def __init__(self, store: Store, thresholds: tuple[int, ...], clock: Clock) -> None:
        self.thresholds = thresholds
        self.clock = clock
        self.on_recorded: Callable[[], object] = lambda: None
        """Called when an event has been recorded."""
        self._store = store
        self._unsaved: deque[Hold] = deque()
        self._unforeseen: deque[tuple[Store, Balance, Milliseconds]] = deque()
        self._saving = threading.Lock()
        store.on_expiry(_dropped)

    def crossed(self, project: str, account: str, threshold: int, balance: Balance) -> None:
        """Record that an account's window has reached a threshold, which one settlement reports."""
        now = self.clock()
        about = {"account": account, "threshold": threshold, "balance": balance}
        self._record(new_hold_id(now), CROSSED, project, now, about)

    def expired(self, project: str, expiry: Expiry) -> None:
        """Record that a hold has expired, which the verb that found it reports once."""
        now = self.clock()
        self._record(new_hold_id(now), EXPIRED, project, now, {"hold": expiry})

    def started(self, project: str, balance: Balance) -> None:
        """Record that an account's window began; once, however often this is called."""
        state = json.dumps([project, balance.account, balance.starts_ms])
        ident = derived_id(balance.starts_ms, state)
        about = {"account": balance.account, "balance": balance}
        self._record(ident, STARTED, project, balance.starts_ms, about)

    def look_ahead(self, store: Store, balance: Balance) -> None:
        """Note that the forecast of an account is to be looked at, since it has crossed a threshold."""
        self._unforeseen.append((store, balance, self.clock()))

    def foresee(self) -> None:
        """Record which of the accounts to be looked at are on course to exceed their limit, once a window.

        This reads records of calls, so it is not for the threads that answer requests.
        """
        while self._unforeseen:
            store, crossed, now = self._unforeseen.popleft()
            try:
                found = exceeding(store, (crossed,), now)
            except StoreError as error:
                _log.error("whether a budget will be exceeded could not be foreseen: %s", error)
                continue
            for balance, made in found:
                state = json.dumps([FORECAST, store.project, balance.account, balance.starts_ms])
                about = {"account": balance.account, "balance": balance, "forecast": made}
                ident = derived_id(balance.starts_ms, state)
                self._record(ident, FORECAST, store.project, made.at_ms, about)

    def on_crossings(self, store: Store, _hold: Hold, crossings: Sequence[Crossing]) -> None:
        """Record thresholds that a settlement has reached."""
        for one in crossings:
            self.look_ahead(store, one.balance)
            self.crossed(store.project, one.account, one.threshold, one.balance)

    def on_reservation(self, store: Store, hold: Hold, answer: Reservation) -> None:
        """Take note of nothing: refusals are no events."""

    def on_expiry(self, store: Store, expiry: Expiry) -> None:
        """Record that a hold has expired."""
        self.expired(store.project, expiry)

    def save(self) -> None:
        """Write the events that the store did not take before.

        Raises:
            StoreError: it does not take them now either.
        """
        with self._saving:
            while self._unsaved:
                self._store.reserve(self._unsaved[0])
                self._unsaved.popleft()

    def waiting(self) -> Iterator[WaitingEvent]:
        """Yield the undelivered events, oldest first.

        Raises:
            StoreError: the store failed.
        """
        for one in sorted(self._store.holds(_OUTBOX), key=lambda one: one.id):
            yield WaitingEvent(one.id, one.tags[0].encode("ascii"))

    def delivered(self, ident: str) -> None:
        """Remove a delivered event.

        Raises:
            StoreError: the store failed; the event may be delivered again.
        """
        self._store.settle(_hold(ident, self.clock(), ""), VOID)

    def _record(self, ident: str, kind: str, project: str, at: Milliseconds, about: dict[str, Any]) -> None:
        body = {"type": kind, "timestamp": to_datetime(at).isoformat(), "data": {"project": project, **about}}
        self._unsaved.append(_hold(ident, self.clock(), to_json(body)))
        try:
            self.save()
        except StoreError as error:
            _log.error("an event waits in memory until the store takes it: %s", error)
        self.on_recorded()


def _hold(ident: str, now: Milliseconds, text: str) -> Hold:
    charge = Charge(_OUTBOX, budget=Budget(None))
    tags = (text,) if text else ()
    return new_hold(now, (charge,), ttl=KEPT, endpoint="webhook", tags=tags, ident=ident)


def _dropped(expiry: Expiry) -> None:
    days = KEPT // 86_400_000
    _log.error("the webhook has not taken event %s in %d days: it is dropped", expiry.hold_id, days)
