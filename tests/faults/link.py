"""What stands between a process and its store: a link on which every verb may go wrong in every way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from budgetguard.core.holds import Booked, Hold, Reservation, Settlement, UnknownAccount
from budgetguard.errors import StoreError
from budgetguard.stores import Store


class Weather(Protocol):
    """Say what happens to the next verb."""

    def fault(self, verb: str) -> str | None:
        """Return `before`, `after`, `late`, `twice`, or None."""

    def choose_first(self) -> bool:
        """Tell whether the first of two answers arrives."""

    def deliver_later(self, what: str, verb: Callable[[], object]) -> None:
        """Take a verb that will reach the store at a later moment, perhaps after others sent after it."""


class Audit(Protocol):
    """Carry out verbs on the store, and compare what it answers with what it should."""

    def reserve(self, store: Store, hold: Hold) -> Reservation:
        """Reserve on the store and in the model."""

    def settle(self, store: Store, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        """Settle on the store and in the model."""


class Link:
    """Be the store of one process. Reading is never wrong, only refused.

    Args:
        store: the real one.
        url: what the process's spool knows it by.
        audit: carries the verbs out.
        weather: what goes wrong.
    """

    blocking = True

    def __init__(self, store: Store, url: str, audit: Audit, weather: Weather) -> None:
        self.url = url
        self.project = store.project
        self._store = store
        self._audit = audit
        self._weather = weather

    def reserve(self, hold: Hold) -> Reservation:
        answer: Reservation = self._send("reserve", hold.id, lambda: self._audit.reserve(self._store, hold))
        return answer

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        answer: Booked | UnknownAccount = self._send(
            settlement.state, hold.id, lambda: self._audit.settle(self._store, hold, settlement)
        )
        return answer

    def observations(self, model: str) -> Any:
        return self._send("observations", model, lambda: self._store.observations(model))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def _send(self, verb: str, of: str, carry_out: Callable[[], Any]) -> Any:
        fault = self._weather.fault(f"{verb} {of[-6:]}")
        if fault == "before":
            raise StoreError(f"{verb}: refused before it reached the store")
        if fault == "late":
            self._weather.deliver_later(f"{verb} {of[-6:]}", carry_out)
            raise StoreError(f"{verb}: no answer in time")
        answer = carry_out()
        if fault == "after":
            raise StoreError(f"{verb}: the connection broke before its answer")
        if fault == "twice":
            again = carry_out()
            return answer if self._weather.choose_first() else again
        return answer
