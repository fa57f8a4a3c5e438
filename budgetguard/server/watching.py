"""Watching what clients do to a project's store: for webhooks, and for alerts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, cast

from budgetguard.core.holds import Booked, Crossing, Expiry, Hold, Reservation, Settlement, UnknownAccount
from budgetguard.stores.base import Store


class Watcher(Protocol):
    """What is told of a store's answers.

    Attributes:
        thresholds: percentages of a limit of which it is told when a window first reaches them.
    """

    thresholds: tuple[int, ...]

    def on_crossings(self, store: Store, hold: Hold, crossings: Sequence[Crossing]) -> None:
        """Hear which of its thresholds the settlement of a hold has reached."""

    def on_reservation(self, store: Store, hold: Hold, answer: Reservation) -> None:
        """Hear how a hold was answered."""

    def on_expiry(self, store: Store, expiry: Expiry) -> None:
        """Hear of a hold that has expired."""


class _Watched:
    """A project's store that tells watchers what it answers, whoever asks."""

    def __init__(self, store: Store, watchers: Sequence[Watcher]) -> None:
        self._store = store
        self._watchers = watchers
        self._thresholds = {percent for one in watchers for percent in one.thresholds}

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def reserve(self, hold: Hold) -> Reservation:
        answer: Reservation = self._store.reserve(hold)
        for expiry in getattr(answer, "expired", ()):
            _expired(self._store, self._watchers, expiry)
        for one in self._watchers:
            one.on_reservation(self._store, hold, answer)
        return answer

    def settle(self, hold: Hold, settlement: Settlement) -> Booked | UnknownAccount:
        asked = settlement.thresholds
        if settlement.state == "settled":
            settlement = replace(settlement, thresholds=tuple(sorted({*asked, *self._thresholds})))
        answer: Booked | UnknownAccount = self._store.settle(hold, settlement)
        if isinstance(answer, UnknownAccount):
            return answer
        for expiry in answer.expired:
            _expired(self._store, self._watchers, expiry)
        for one in self._watchers:
            crossings = tuple(found for found in answer.crossings if found.threshold in one.thresholds)
            if crossings:
                one.on_crossings(self._store, hold, crossings)
        return replace(answer, crossings=tuple(one for one in answer.crossings if one.threshold in asked))


def watched(store: Store, *watchers: Watcher) -> Store:
    """Return a store that does the same and tells watchers."""
    store.on_expiry(partial(_expired, store, watchers))
    return cast(Store, _Watched(store, watchers))


def _expired(store: Store, watchers: Sequence[Watcher], expiry: Expiry) -> None:
    for one in watchers:
        one.on_expiry(store, expiry)
